// Delta-bar-delta: r' = r + increase if g and the mean d of the gradients before have one sign, r decrease if they differ,
// within limits; d' = d + (1 - decay) (g - d); g' = r' g.
#include "../transform.cuh"

struct DeltaBarDeltaSettings {
    double decay;
    float increase, decrease, least, most;
};

struct DeltaBarDeltaPrepared {
    float rest, increase, decrease, least, most;  // rest = 1 - decay
};

__device__ __forceinline__ DeltaBarDeltaPrepared prepare(const DeltaBarDeltaSettings& s, const Step&) {
    return {(float)(1.0 - s.decay), s.increase, s.decrease, s.least, s.most};
}

// Slots: the mean gradient, then the gain, which is 0 before the first update.
__device__ __forceinline__ void transform(const DeltaBarDeltaPrepared& s, const Parameter&, Element& e) {
    float &mean = e.slots[0], &gain = e.slots[1];
    const float old = gain == 0.0f ? 1.0f : gain, agreement = e.g * mean;
    gain = agreement > 0.0f ? old + s.increase : agreement < 0.0f ? old * s.decrease : old;
    gain = fminf(fmaxf(gain, s.least), s.most);
    mean += s.rest * (e.g - mean);
    e.g = gain * e.g;
}
