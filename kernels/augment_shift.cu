// Shifts by whole pixels.
#include "augment.cuh"

// y[i + down, j + right] = x[i, j], and 0 where x has no such pixel. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_shift(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: down, right
    const float* table,          // (1 + 2 C), or null
    T* y,                        // (N, H, W, C)
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    const int i = pixel / w, j = pixel % w;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * stride;
        const int row = i - (int)draw[0], column = j - (int)draw[1];
        const bool inside = row >= 0 && row < h && column >= 0 && column < w;
        const long long from = ((image * h + row) * w + column) * c, to = (image * (h * w) + pixel) * c;
#pragma unroll 1
        for (int k = 0; k < c; ++k) y[to + k] = from_float<T>(normalized(table, k, c, inside ? x.at(from + k) : 0.0f));
    }
}
KERNEL(augment_shift, f32, bf16)
