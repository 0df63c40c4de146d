// Momentum of gradients: v' = mu v + g; g' = v', or g + mu v' with Nesterov's look-ahead. Momentum of updates:
// v' = mu v + lr share g; g' = v' / lr, or if lr is 0, v' = v and g' = 0.
#include "../transform.cuh"

struct MomentumSettings {
    float mu, share;
    int nesterov, of_updates;
};

__device__ __forceinline__ void transform(const MomentumSettings& s, const Parameter& p, Element& e) {
    float& v = e.slots[0];
    if (s.of_updates) {
        if (p.lr != 0.0f) v = s.mu * v + p.lr * s.share * e.g;
        e.g = p.lr != 0.0f ? v / p.lr : 0.0f;
        return;
    }
    v = s.mu * v + e.g;
    e.g = s.nesterov ? e.g + s.mu * v : v;
}
