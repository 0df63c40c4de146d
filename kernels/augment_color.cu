// Changes of colours.
#include "augment.cuh"

// y = M x + f m + a, where m is the mean of the grey values of the image. A block of 256 threads per image, which sums in a fixed order.
template <typename T>
__device__ void augment_color(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: M by rows, f, a
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, H, W, C), C = 1 or 3
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const auto mixed = [](float p, float a, float q, float b, float r, float d) {
        return __fmul_rn(p, a) + __fmul_rn(q, b) + __fmul_rn(r, d);
    };
    for (long long image = blockIdx.x; image < images; image += gridDim.x) {
        const float* draw = draws + image * stride;
        const long long first = image * (h * w) * c;
        float sum = 0.0f;
        for (int pixel = threadIdx.x; pixel < h * w; pixel += blockDim.x) {
            const long long at = first + (long long)pixel * c;
            sum += c == 1 ? x.at(at) : mixed(0.299f, x.at(at), 0.587f, x.at(at + 1), 0.114f, x.at(at + 2));
        }
        const float shift = __fmul_rn(draw[9], block_sum(sum) / (float)(h * w));
        for (int pixel = threadIdx.x; pixel < h * w; pixel += blockDim.x) {
            const long long at = first + (long long)pixel * c;
            for (int k = 0; k < c; ++k) {
                const float* m = draw + 3 * k;
                const float value =
                    c == 1 ? __fmul_rn(m[0], x.at(at)) : mixed(m[0], x.at(at), m[1], x.at(at + 1), m[2], x.at(at + 2));
                y[at + k] = from_float<T>(normalized(table, pixel * c + k, value + (shift + draw[10 + k])));
            }
        }
    }
}
KERNEL(augment_color, f32, bf16)
