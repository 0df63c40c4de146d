// The metrics of a batch from those of its samples.
#include "block.cuh"

// One block: sums the rows in an order fixed by their number.
__device__ void sum_metrics(
    const float* rows,  // (N, count)
    float* metrics,     // (count): the first `means` are sums * scale, the others sums
    int n, int count, int means, float scale) {
    for (int i = 0; i < count; ++i) {
        float sum = 0.0f;
        for (int row = threadIdx.x; row < n; row += blockDim.x) sum += rows[(long long)count * row + i];
        sum = block_sum(sum);
        if (threadIdx.x == 0) metrics[i] = i < means ? sum * scale : sum;
    }
}
KERNEL(sum_metrics)
