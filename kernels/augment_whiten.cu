// Whitening of normalised images: y = W (x - mean).
#include "augment.cuh"

// One thread per output, a row of the grid per image. The sum runs over the inputs in order, and no product is fused with an addition.
template <typename T>
__device__ void augment_whiten(
    const float* x,      // (N, D)
    const float* mean,   // (D)
    const float* tiles,  // (ceil(D / tile), D, tile): W transposed, in tiles of outputs
    T* y,                // (N, D)
    int images, int d, int tile) {
    const int o = blockIdx.x * blockDim.x + threadIdx.x;
    if (o >= d) return;
    const float* w = tiles + (long long)(o / tile) * d * tile + o % tile;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* from = x + image * d;
        float sum = 0.0f;
        for (int i = 0; i < d; ++i) sum += __fmul_rn(w[(long long)i * tile], from[i] - mean[i]);
        y[image * d + o] = from_float<T>(sum);
    }
}
KERNEL(augment_whiten, f32, bf16)
