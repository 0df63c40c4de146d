// Completes the result of a library: y[row, column] += bias[column], then max(y, 0) if relu is not 0. One vector of y per
// thread.
#include "block.cuh"

template <typename T>
__device__ void bias_add(
    T* y,               // (n / columns, columns)
    const T* bias,      // (columns), or null
    long long n, int columns, int relu) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    Vector<T> vector = load_vector(y, i, n);
    int column = (int)(i % columns);
    for (int j = 0; j < Vector<T>::SIZE; ++j) {
        const float sum = to_float(vector.at[j]) + (bias ? to_float(bias[column]) : 0.0f);
        vector.at[j] = from_float<T>(rectified(sum, relu));
        if (++column == columns) column = 0;
    }
    store_vector(y, i, n, vector);
}
KERNEL(bias_add, f32, bf16)
