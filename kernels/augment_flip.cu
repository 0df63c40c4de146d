// Mirror images.
#include "augment.cuh"

// y[i, j] = x[i, j] with rows or columns in the opposite order. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_flip(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: whether rows, and whether columns are exchanged
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, H, W, C)
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    const int i = pixel / w, j = pixel % w;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * stride;
        const int row = draw[0] != 0.0f ? h - 1 - i : i, column = draw[1] != 0.0f ? w - 1 - j : j;
        const long long from = ((image * h + row) * w + column) * c, to = (image * (h * w) + pixel) * c;
#pragma unroll 1
        for (int k = 0; k < c; ++k) y[to + k] = from_float<T>(normalized(table, pixel * c + k, x.at(from + k)));
    }
}
KERNEL(augment_flip, f32, bf16)
