// Writes the loss and counts of a step to mapped host memory, where the host reads them once the step has finished.
#include "block.cuh"

// One block.
__device__ void results_to_host(
    const float* results,  // (n)
    float* host,           // (n)
    int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) host[i] = results[i];
}
KERNEL(results_to_host)
