// Completes the result of a library: y[row, column] += bias[column], then max(y, 0) if relu is not 0. One pack of y per
// thread.
#include "block.cuh"

template <typename T>
__device__ void bias_add(
    T* y,               // (n / columns, columns)
    const float* bias,  // (columns), or null
    long long n, int columns, int relu) {
    const long long i = pack_start<T>();
    if (i >= n) return;
    Pack<T> pack = load_pack(y, i, n);
    int column = (int)(i % columns);
    for (int j = 0; j < Pack<T>::SIZE; ++j) {
        const float sum = to_float(pack.at[j]) + (bias ? bias[column] : 0.0f);
        pack.at[j] = from_float<T>(relu && !(sum > 0.0f) ? 0.0f : sum);
        if (++column == columns) column = 0;
    }
    store_pack(y, i, n, pack);
}
KERNEL(bias_add, f32, bf16)
