// Momentum of gradients: v' = mu v + g; g' = v', or g + mu v' with Nesterov's look-ahead.
#include "../transform.cuh"

struct MomentumSettings {
    float mu;
    int nesterov;
};

__device__ __forceinline__ void transform(const MomentumSettings& s, const Parameter&, Element& e) {
    float& v = e.slots[0];
    v = s.mu * v + e.g;
    e.g = s.nesterov ? e.g + s.mu * v : v;
}
