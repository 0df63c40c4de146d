// Clipping by the norm of the gradients of each layer: g' = g min(1, max_norm / norm).
#include "../transform.cuh"

struct ClipByLayerNormSettings {
    float max_norm;
};

__device__ __forceinline__ void transform(const ClipByLayerNormSettings& s, const Parameter& p, Element& e) {
    if (p.layer_norm > s.max_norm) e.g *= s.max_norm / p.layer_norm;
}
