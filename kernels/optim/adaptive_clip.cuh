// Adaptive gradient clipping: g' = g min(1, clipping max(|w|, epsilon) / |g|), where |g| and |w| are norms of the unit.
#include "../transform.cuh"

struct AdaptiveClipSettings {
    float clipping, epsilon;
};

__device__ __forceinline__ void transform(const AdaptiveClipSettings& s, const Parameter&, Element& e) {
    const float most = s.clipping * fmaxf(e.unit_weights, s.epsilon);
    if (e.unit_gradient > most) e.g *= most / e.unit_gradient;
}
