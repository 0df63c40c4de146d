// AdaGrad: s' = s + g^2; g' = g / (sqrt(s' + initial) + epsilon).
#include "../transform.cuh"

struct AdagradSettings {
    float epsilon, initial;
};

__device__ __forceinline__ void transform(const AdagradSettings& s, const Parameter&, Element& e) {
    float& sum = e.slots[0];
    sum += e.g * e.g;
    e.g /= sqrtf(sum + s.initial) + s.epsilon;
}
