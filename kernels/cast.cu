// Converts between f32 and bf16, rounding to nearest even. One thread per 8 elements.
#include "block.cuh"

__device__ void cast_to_bf16(
    const float* x,  // (n)
    __nv_bfloat16* y,  // (n)
    long long n) {
    const long long i = pack_start<bf16>();
    if (i >= n) return;
    const Pack<float> low = load_pack(x, i, n), high = load_pack(x, i + 4, n);
    Pack<bf16> pack;
    for (int j = 0; j < 8; ++j) pack.at[j] = from_float<bf16>(j < 4 ? low.at[j] : high.at[j - 4]);
    store_pack(y, i, n, pack);
}
KERNEL(cast_to_bf16)

__device__ void cast_to_float(
    const __nv_bfloat16* x,  // (n)
    float* y,  // (n)
    long long n) {
    const long long i = pack_start<bf16>();
    if (i >= n) return;
    const Pack<bf16> pack = load_pack(x, i, n);
    Pack<float> low, high;
    for (int j = 0; j < 4; ++j) {
        low.at[j] = to_float(pack.at[j]);
        high.at[j] = to_float(pack.at[j + 4]);
    }
    store_pack(y, i, n, low);
    store_pack(y, i + 4, n, high);
}
KERNEL(cast_to_float)
