// Mixed pairs of prepared images.
#include "augment.cuh"

// y is the second image of a pair in a box, and weight a + (1 - weight) b outside. One thread per pixel, a row of the grid per pair.
template <typename T>
__device__ void augment_mix(
    const float* x,      // (N, 2, H, W, C)
    const float* draws,  // (2 N, stride), from its values on, which are those of the pair for both images: the weight, the first row and column of the
                         // box, the row and column after it
    T* y,                // (N, H, W, C)
    int pairs, int h, int w, int c, int stride) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    const float row = (float)(pixel / w), column = (float)(pixel % w);
    const long long size = (long long)h * w * c, first = (long long)pixel * c;
    for (long long pair = blockIdx.y; pair < pairs; pair += gridDim.y) {
        const float* draw = draws + 2 * pair * stride;
        const bool inside = row >= draw[1] && column >= draw[2] && row < draw[3] && column < draw[4];
        const float weight = draw[0], other = 1.0f - weight;
        const float *a = x + 2 * pair * size + first, *b = a + size;
#pragma unroll 1
        for (int k = 0; k < c; ++k) {
            const float outside = weight < 1.0f ? __fmul_rn(weight, a[k]) + __fmul_rn(other, b[k]) : a[k];
            y[pair * size + first + k] = from_float<T>(inside ? b[k] : outside);
        }
    }
}
KERNEL(augment_mix, f32, bf16)
