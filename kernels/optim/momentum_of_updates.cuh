// Momentum of updates, the other forms of momentum: v' = mu v + lr share g; g' = v' / lr, or if lr is 0, v' = v and g' = 0.
#include "../transform.cuh"

struct MomentumOfUpdatesSettings {
    float mu, share;
};

__device__ __forceinline__ void transform(const MomentumOfUpdatesSettings& s, const Parameter& p, Element& e) {
    float& v = e.slots[0];
    if (p.lr != 0.0f) v = s.mu * v + p.lr * s.share * e.g;
    e.g = p.lr != 0.0f ? v / p.lr : 0.0f;
}
