// Parts of images: crops, and shifts, which are crops of the size of the image that reach beyond it.
#include "augment.cuh"

// y[i, j] = x[i + top, j + left], and 0 where x has no such pixel. One thread per pixel of y, a row of the grid per image.
template <typename T>
__device__ void augment_crop(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: top, left
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, rows, columns, C)
    int images, int h, int w, int c, int rows, int columns, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= rows * columns) return;
    const int i = pixel / columns, j = pixel % columns;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * stride;
        const int row = i + (int)draw[0], column = j + (int)draw[1];
        const bool inside = row >= 0 && row < h && column >= 0 && column < w;
        const long long from = ((image * h + row) * w + column) * c, to = (image * (rows * columns) + pixel) * c;
#pragma unroll 1
        for (int k = 0; k < c; ++k) y[to + k] = from_float<T>(normalized(table, pixel * c + k, inside ? x.at(from + k) : 0.0f));
    }
}
KERNEL(augment_crop, f32, bf16)
