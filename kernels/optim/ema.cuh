// The exponential moving average of the weights after the update: a' = w' at the first update, then
// a' = a + (1 - decay) (w' - a) with w' = w - lr g.
#include "../transform.cuh"

struct EmaSettings {
    double decay;
};

struct EmaPrepared {
    float rest;  // 1 - decay, or 1 at the first update
};

__device__ __forceinline__ EmaPrepared prepare(const EmaSettings& s, const Step& at) {
    return {at.update == 1 ? 1.0f : (float)(1.0 - s.decay)};
}

__device__ __forceinline__ void transform(const EmaPrepared& s, const Parameter& p, Element& e) {
    const float w = e.w - p.lr * e.g;
    float& a = e.slots[0];
    a = s.rest == 1.0f ? w : a + s.rest * (w - a);
}
