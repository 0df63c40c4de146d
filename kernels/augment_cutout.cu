// Squares of one value.
#include "augment.cuh"

// y is x, but one value in a square. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_cutout(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: first row, first column, size, value
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, H, W, C)
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * stride;
        const float down = (float)(pixel / w) - draw[0], right = (float)(pixel % w) - draw[1];
        const bool inside = down >= 0.0f && down < draw[2] && right >= 0.0f && right < draw[2];
        const long long at = (image * (h * w) + pixel) * c;
#pragma unroll 1
        for (int k = 0; k < c; ++k) y[at + k] = from_float<T>(normalized(table, pixel * c + k, inside ? draw[3] : x.at(at + k)));
    }
}
KERNEL(augment_cutout, f32, bf16)
