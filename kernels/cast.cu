// Converts between f32 and bf16, rounding to nearest even. One thread per 8 elements.
#include "block.cuh"

__device__ void cast_to_bf16(
    const float* x,  // (n)
    __nv_bfloat16* y,  // (n)
    long long n) {
    const long long i = vector_start<bf16>();
    if (i >= n) return;
    const Vector<float> low = load_vector(x, i, n), high = load_vector(x, i + 4, n);
    Vector<bf16> vector;
    for (int j = 0; j < 8; ++j) vector.at[j] = from_float<bf16>(j < 4 ? low.at[j] : high.at[j - 4]);
    store_vector(y, i, n, vector);
}
KERNEL(cast_to_bf16)

__device__ void cast_to_float(
    const __nv_bfloat16* x,  // (n)
    float* y,  // (n)
    long long n) {
    const long long i = vector_start<bf16>();
    if (i >= n) return;
    const Vector<bf16> vector = load_vector(x, i, n);
    Vector<float> low, high;
    for (int j = 0; j < 4; ++j) {
        low.at[j] = to_float(vector.at[j]);
        high.at[j] = to_float(vector.at[j + 4]);
    }
    store_vector(y, i, n, low);
    store_vector(y, i + 4, n, high);
}
KERNEL(cast_to_float)
