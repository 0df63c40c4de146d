// Lion: g' = sign(beta1 m + (1 - beta1) g), then m' = m + (1 - beta2) (g - m).
#include "../transform.cuh"

struct LionSettings {
    double beta1, beta2;
};

struct LionPrepared {
    float beta1, rest1, rest2;  // 1 - beta1, 1 - beta2
};

__device__ __forceinline__ LionPrepared prepare(const LionSettings& s, const Step&) {
    return {(float)s.beta1, (float)(1.0 - s.beta1), (float)(1.0 - s.beta2)};
}

__device__ __forceinline__ void transform(const LionPrepared& s, const Parameter&, Element& e) {
    float& m = e.slots[0];
    const float mixed = s.beta1 * m + s.rest1 * e.g;
    m += s.rest2 * (e.g - m);
    e.g = sign(mixed);
}
