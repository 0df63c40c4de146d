// Rprop: s' = s increase if g has the sign of the gradient before, s decrease if it has the other one, within limits; after a
// change of sign, g counts as 0; g' = s' sign(g).
#include "../transform.cuh"

struct RpropSettings {
    float decrease, increase, least, most;
};

// Slots: the gradient before, then the step size, which is 0 before the first update.
__device__ __forceinline__ void transform(const RpropSettings& s, const Parameter&, Element& e) {
    float &before = e.slots[0], &size = e.slots[1];
    const float agreement = sign(e.g) * sign(before);
    const float factor = agreement > 0.0f ? s.increase : agreement < 0.0f ? s.decrease : 1.0f;
    size = fminf(fmaxf((size == 0.0f ? 1.0f : size) * factor, s.least), s.most);
    before = agreement < 0.0f ? 0.0f : e.g;
    e.g = sign(before) * size;
}
