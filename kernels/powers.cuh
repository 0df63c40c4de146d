// Powers of the sums of local response normalisation.
#pragma once
#include "block.cuh"

// s^-beta and 1 / s; roots are many times faster than a power.
struct Powers {
    float beta, one;
};
__device__ __forceinline__ Powers powers(float s, float beta) {
    if (beta == 0.75f || beta == 0.5f) {
        const float root = rsqrtf(s);
        return {beta == 0.5f ? root : root * sqrtf(root), root * root};
    }
    return {powf(s, -beta), 1.0f / s};
}
