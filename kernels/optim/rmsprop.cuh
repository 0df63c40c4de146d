// RMSProp: v' = decay v + (1 - decay) g^2; centered, a' = a + (1 - decay) (g - a), and the variance v' - a'^2 stands for
// v'; d = g / (sqrt(v') + epsilon); g' = d, or with momentum u' = momentum u + d; g' = u'.
#include "../transform.cuh"

struct RmspropSettings {
    double decay;
    float epsilon, momentum;
    int centered;
};

struct RmspropPrepared {
    float decay, rest, epsilon, momentum;  // rest = 1 - decay
    int centered;
};

__device__ __forceinline__ RmspropPrepared prepare(const RmspropSettings& s, const Step&) {
    return {(float)s.decay, (float)(1.0 - s.decay), s.epsilon, s.momentum, s.centered};
}

// Slots: the mean square, then the mean if centered, then the velocity with momentum.
__device__ __forceinline__ void transform(const RmspropPrepared& s, const Parameter&, Element& e) {
    float& v = e.slots[0];
    v = s.decay * v + s.rest * (e.g * e.g);
    float square = v;
    if (s.centered) {
        float& a = e.slots[1];
        a += s.rest * (e.g - a);
        square = fmaxf(v - a * a, 0.0f);
    }
    e.g /= sqrtf(square) + s.epsilon;
    if (s.momentum == 0.0f) return;
    float u = s.momentum * (s.centered ? e.slots[2] : e.slots[1]) + e.g;
    (s.centered ? e.slots[2] : e.slots[1]) = u;
    e.g = u;
}
