// LARS: g' = r (g + d w) with d = decay decay_mult and r = trust |w| / (|g| + d |w| + epsilon), where r is 1 unless |w|
// and |g| are above 0.
#include "../transform.cuh"

struct LarsSettings {
    float trust, decay, epsilon;
};

__device__ __forceinline__ void transform(const LarsSettings& s, const Parameter& p, Element& e) {
    const float decay = s.decay * p.decay_mult;
    float ratio = 1.0f;
    if (p.weight_norm > 0.0f && p.gradient_norm > 0.0f)
        ratio = s.trust * p.weight_norm / (p.gradient_norm + decay * p.weight_norm + s.epsilon);
    e.g = ratio * (e.g + decay * e.w);
}
