// Adam: m' = m + (1 - beta1) (g - m); v' = beta2 v + (1 - beta2) g^2; g' = m'/c1 / (sqrt(v'/c2) + epsilon), where
// c1 = 1 - beta1^t and c2 = 1 - beta2^t after t updates, or 1 without bias correction.
#include "../transform.cuh"

struct AdamSettings {
    double beta1, beta2;
    float epsilon;
    int bias_correction;
};

struct AdamPrepared {
    float rest1, beta2, rest2, epsilon;  // 1 - beta1, beta2, 1 - beta2
    float mean, root;                    // 1/c1, 1/sqrt(c2)
};

__device__ __forceinline__ AdamPrepared prepare(const AdamSettings& s, const Step& at) {
    const double c1 = s.bias_correction ? 1.0 - power(s.beta1, at.update) : 1.0;
    const double c2 = s.bias_correction ? 1.0 - power(s.beta2, at.update) : 1.0;
    return {(float)(1.0 - s.beta1), (float)s.beta2, (float)(1.0 - s.beta2),
            s.epsilon,              (float)(1.0 / c1), (float)(1.0 / sqrt(c2))};
}

// Slots: the mean, then the mean square.
__device__ __forceinline__ void transform(const AdamPrepared& s, const Parameter&, Element& e) {
    float &m = e.slots[0], &v = e.slots[1];
    m += s.rest1 * (e.g - m);
    v = s.beta2 * v + s.rest2 * (e.g * e.g);
    e.g = m * s.mean / (sqrtf(v) * s.root + s.epsilon);
}
