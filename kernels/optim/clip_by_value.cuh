// Clipping by value: g' = min(max(g, -limit), limit).
#include "../transform.cuh"

struct ClipByValueSettings {
    float limit;
};

__device__ __forceinline__ void transform(const ClipByValueSettings& s, const Parameter&, Element& e) {
    e.g = fmaxf(fminf(e.g, s.limit), -s.limit);
}
