// L2 weight decay: g' = g + decay decay_mult w.
#include "../transform.cuh"

struct WeightDecaySettings {
    float decay;
};

__device__ __forceinline__ void transform(const WeightDecaySettings& s, const Parameter& p, Element& e) {
    e.g += s.decay * p.decay_mult * e.w;
}
