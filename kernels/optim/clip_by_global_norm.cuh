// Clipping by the norm of all gradients together: g' = g min(1, max_norm / norm).
#include "../transform.cuh"

struct ClipByGlobalNormSettings {
    float max_norm;
};

__device__ __forceinline__ void transform(const ClipByGlobalNormSettings& s, const Parameter& p, Element& e) {
    if (p.norm > s.max_norm) e.g *= s.max_norm / p.norm;
}
