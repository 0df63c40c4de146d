// AdaDelta: v' = decay v + (1 - decay) g^2; g' = sqrt(u + epsilon) / sqrt(v' + epsilon) g;
// u' = decay u + (1 - decay) g'^2.
#include "../transform.cuh"

struct AdadeltaSettings {
    double decay;
    float epsilon;
};

struct AdadeltaPrepared {
    float decay, rest, epsilon;  // rest = 1 - decay
};

__device__ __forceinline__ AdadeltaPrepared prepare(const AdadeltaSettings& s, const Step&) {
    return {(float)s.decay, (float)(1.0 - s.decay), s.epsilon};
}

// Slots: the mean square of the gradient, then that of the updates.
__device__ __forceinline__ void transform(const AdadeltaPrepared& s, const Parameter&, Element& e) {
    float &v = e.slots[0], &u = e.slots[1];
    v = s.decay * v + s.rest * (e.g * e.g);
    e.g = sqrtf(u + s.epsilon) / sqrtf(v + s.epsilon) * e.g;
    u = s.decay * u + s.rest * (e.g * e.g);
}
