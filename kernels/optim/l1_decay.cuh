// L1 weight decay: g' = g + decay decay_mult sign(w).
#include "../transform.cuh"

struct L1DecaySettings {
    float decay;
};

__device__ __forceinline__ void transform(const L1DecaySettings& s, const Parameter& p, Element& e) {
    e.g += s.decay * p.decay_mult * sign(e.w);
}
