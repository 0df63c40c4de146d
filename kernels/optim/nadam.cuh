// Nadam: m' = m + (1 - beta1) (g - m); v' = beta2 v + (1 - beta2) g^2; g' = (a g + b m') / (sqrt(v'/c2) + epsilon), where
// c2 = 1 - beta2^t after t updates, a = (1 - mu(t)) / (1 - M(t)), b = mu(t + 1) / (1 - M(t + 1)),
// mu(t) = beta1 (1 - ratio^t / 2) and M(t) = mu(1) .. mu(t).
#include "../transform.cuh"

struct NadamSettings {
    double beta1, beta2, ratio;  // 0.96^momentum_decay
    float epsilon;
};

struct NadamPrepared {
    float rest1, beta2, rest2, epsilon;  // 1 - beta1, beta2, 1 - beta2
    float a, b, root;                    // 1/sqrt(c2)
};

__device__ __forceinline__ NadamPrepared prepare(const NadamSettings& s, const Step& at) {
    // Below 1e-18, the product no longer changes 1 - M.
    double product = 1.0, ratio = 1.0;
    for (long long i = 0; i < at.update && product > 1e-18; ++i) {
        ratio *= s.ratio;
        product *= s.beta1 * (1.0 - 0.5 * ratio);
    }
    const double now = s.beta1 * (1.0 - 0.5 * power(s.ratio, at.update));
    const double next = s.beta1 * (1.0 - 0.5 * power(s.ratio, at.update + 1));
    return {(float)(1.0 - s.beta1), (float)s.beta2, (float)(1.0 - s.beta2), s.epsilon,
            (float)((1.0 - now) / (1.0 - product)), (float)(next / (1.0 - product * next)),
            (float)(1.0 / sqrt(1.0 - power(s.beta2, at.update)))};
}

// Slots: the mean, then the mean square.
__device__ __forceinline__ void transform(const NadamPrepared& s, const Parameter&, Element& e) {
    float &m = e.slots[0], &v = e.slots[1];
    m += s.rest1 * (e.g - m);
    v = s.beta2 * v + s.rest2 * (e.g * e.g);
    e.g = (s.a * e.g + s.b * m) / (sqrtf(v) * s.root + s.epsilon);
}
