// Linear maps about the centre with bilinear interpolation.
#include "augment.cuh"

// y at p is x at M p, about ((H - 1) / 2, (W - 1) / 2), interpolated bilinearly, and 0 outside the image. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_warp(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: M by rows
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, H, W, C)
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    const float middle_i = (float)(h - 1) / 2.0f, middle_j = (float)(w - 1) / 2.0f;
    const float di = (float)(pixel / w) - middle_i, dj = (float)(pixel % w) - middle_j;
    const auto clamped = [](float at, float last) { return at < 0.0f ? 0.0f : at > last ? last : at; };
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* m = draws + image * stride;
        // Coordinates include a black frame of one pixel, to which points farther outside are clamped.
        const float at_i = __fmul_rn(m[0], di) + __fmul_rn(m[1], dj) + middle_i + 1.0f;
        const float at_j = __fmul_rn(m[2], di) + __fmul_rn(m[3], dj) + middle_j + 1.0f;
        const float i = clamped(at_i, (float)(h + 1)), j = clamped(at_j, (float)(w + 1));
        const int top = (int)i, left = (int)j;
        const float down = i - (float)top, right = j - (float)left;
        const bool rows[2] = {top >= 1 && top <= h, top < h}, columns[2] = {left >= 1 && left <= w, left < w};
        const long long from = ((image * h + top - 1) * w + left - 1) * c, to = (image * (h * w) + pixel) * c;
        const long long below = (long long)w * c;
        for (int k = 0; k < c; ++k) {
            const auto neighbour = [&](int row, int column) {
                return rows[row] && columns[column] ? x.at(from + row * below + column * c + k) : 0.0f;
            };
            const auto mixed = [](float share, float first, float second) {
                return __fmul_rn(1.0f - share, first) + __fmul_rn(share, second);
            };
            const float upper = mixed(right, neighbour(0, 0), neighbour(0, 1));
            const float lower = mixed(right, neighbour(1, 0), neighbour(1, 1));
            y[to + k] = from_float<T>(normalized(table, pixel * c + k, mixed(down, upper, lower)));
        }
    }
}
KERNEL(augment_warp, f32, bf16)
