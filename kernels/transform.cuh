// What a transform of the optimiser's chain is made of. kernels/optim/x.cuh defines:
//
//     struct XSettings { float rate; };  // plain numbers; build.rs writes the same struct in Rust
//     __device__ __forceinline__ void transform(const XSettings& s, const Parameter& p, Element& e)
//
// and, if something follows from the settings and the step, a function that computes it in double precision once per
// block; `transform` then takes its result in place of the settings:
//
//     __device__ __forceinline__ XPrepared prepare(const XSettings& s, const Step& at)
//
// Slots are numbered in the order of `Transform::slots` in src/optim/x.rs.
#pragma once
#include "block.cuh"

// The time of an update.
struct Step {
    long long update;  // its number since the transform joined the chain, from 1
};

// What all elements of a parameter have in common.
struct Parameter {
    float lr;             // the learning rate times lr_mult
    float decay_mult;     // multiplies the weight decay
    float norm;           // of the gradients of all parameters together
    float layer_norm;     // of the gradients of this parameter's layer
    float gradient_norm;  // of this parameter's gradient
    float weight_norm;    // of this parameter's weights
};

// A weight, its gradient, and what the transform keeps for it.
struct Element {
    float g, w;
    float slots[4];
    float unit_gradient, unit_weights;  // the norms of its unit, if a transform requires them
};

// 1, 0 or -1.
__device__ __forceinline__ float sign(float x) { return (float)((x > 0.0f) - (x < 0.0f)); }

// x to the power n, with the same bits on every machine, as `power` in src/optim/transform.rs.
__device__ inline double power(double x, long long n) {
    double product = 1.0;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2 == 1) product *= x;
    return product;
}

// Settings that nothing follows from.
template <class Settings> __device__ __forceinline__ Settings prepare(const Settings& s, const Step&) { return s; }
