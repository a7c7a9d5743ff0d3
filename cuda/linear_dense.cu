// y = x @ weight^T + bias for dense weights (the head, mostly), and linear() itself, which serves every kind.
//
// Bound by reading the weight, 2 or 4 bytes each: a float16 head of 128,256 x 4,096 is 1.05 GB, 0.24 ms at 4.3 TB/s.
// Two bytes a weight leave single threads time for float32 arithmetic: 10 weights a clock and multiprocessor. A warp has
// four outputs, so that an activation that it reads from the L1 cache serves four products; x stays float32.
// A row's sum has the same order whatever the number of rows. Reference: linear() in model/kernels/reference/linear.py.
#include "linear.cuh"
#include "workspace.cuh"

namespace parlor {

int linear_quantized(const Device& device, const linear_weight& weight, const Activations& a, int64_t m, float* out,
                     int64_t out_stride, int epilogue, void* stream);

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kOutputs = 4;      // of a warp
constexpr int kAtOnce = 8;       // columns that a lane reads with one load
constexpr int kRowsOfPass = 64;  // normed rows that fit the workspace

// kAtOnce weights as float32; `has_vectors`: rows begin at multiples of 16 bytes and end at multiples of kAtOnce.
__device__ __forceinline__ void load_weights(const float* row, int64_t column, int64_t k, bool has_vectors,
                                             float (&values)[kAtOnce]) {
    if (has_vectors) {
        const float4 low = __ldcs(reinterpret_cast<const float4*>(row + column));
        const float4 high = __ldcs(reinterpret_cast<const float4*>(row + column) + 1);
        values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
        values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values[i] = column + i < k ? row[column + i] : 0.0f;
}
template <bool kIsBfloat>
__device__ __forceinline__ void load_weights(const uint16_t* row, int64_t column, int64_t k, bool has_vectors,
                                             float (&values)[kAtOnce]) {
    uint32_t words[kAtOnce / 2];
    if (has_vectors) {
        const uint4 four = __ldcs(reinterpret_cast<const uint4*>(row + column));
        words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
    } else {
#pragma unroll
        for (int i = 0; i < kAtOnce / 2; ++i) {
            const uint32_t low = column + 2 * i < k ? row[column + 2 * i] : 0;
            const uint32_t high = column + 2 * i + 1 < k ? row[column + 2 * i + 1] : 0;
            words[i] = low | high << 16;
        }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce / 2; ++i) {
        const float2 pair = kIsBfloat ? make_float2(__uint_as_float(words[i] << 16), __uint_as_float(words[i] & 0xffff0000u))
                                      : __half22float2(as_half2(words[i]));
        values[2 * i] = pair.x, values[2 * i + 1] = pair.y;
    }
}

struct Dense {
    const void* weight;  // [n, k]
    const float* bias;
    const float* x;
    int64_t x_stride, m;
    float* out;
    int64_t out_stride, n, k;
    int epilogue;
    bool has_vectors;
};

// The i-th output of the warp whose first is `first`; gate and up of SILU_MUL go to the same warp.
__device__ __forceinline__ int64_t output_of(const Dense& d, int64_t first, int i) {
    if (d.epilogue != PARLOR_EPILOGUE_SILU_MUL) return first + i;
    constexpr int kHalf = kOutputs / 2;
    return first / 2 + i % kHalf + (i < kHalf ? 0 : d.n / 2);
}

// Grid: outputs, chunks of kRows rows.
template <int kKind, int kRows>
__global__ void __launch_bounds__(kThreads) dense_kernel(const Dense d) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int lane = threadIdx.x % 32;
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kOutputs;
    const bool is_silu = d.epilogue == PARLOR_EPILOGUE_SILU_MUL;
    if (first >= d.n) return;
    int64_t outputs[kOutputs];
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
        outputs[i] = output_of(d, first, i);
        const int64_t end = is_silu && i < kOutputs / 2 ? d.n / 2 : d.n;
        outputs[i] = outputs[i] < end ? outputs[i] : -1;
    }
    for (int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows; first_row < d.m; first_row += gridDim.y * kRows) {
        const int rows = static_cast<int>(d.m - first_row < kRows ? d.m - first_row : kRows);
        float sums[kOutputs][kRows] = {};
        for (int64_t column = lane * kAtOnce; column < d.k; column += 32 * kAtOnce) {
            float w[kOutputs][kAtOnce];
#pragma unroll
            for (int i = 0; i < kOutputs; ++i) {
                const int64_t offset = (outputs[i] < 0 ? 0 : outputs[i]) * d.k;
                if constexpr (kKind == PARLOR_LINEAR_F32)
                    load_weights(static_cast<const float*>(d.weight) + offset, column, d.k, d.has_vectors, w[i]);
                else
                    load_weights<kKind == PARLOR_LINEAR_BF16>(static_cast<const uint16_t*>(d.weight) + offset, column, d.k,
                                                              d.has_vectors, w[i]);
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                if (r >= rows) break;
                const float* const x = d.x + (first_row + r) * d.x_stride;
#pragma unroll
                for (int j = 0; j < kAtOnce; ++j) {
                    const float value = column + j < d.k ? x[column + j] : 0.0f;
#pragma unroll
                    for (int i = 0; i < kOutputs; ++i) sums[i][r] += w[i][j] * value;
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float y[kOutputs];
#pragma unroll
            for (int i = 0; i < kOutputs; ++i) {
                y[i] = warp_sum(sums[i][r]);
                if (d.bias && outputs[i] >= 0) y[i] += d.bias[outputs[i]];
            }
            if (lane != 0 || r >= rows) continue;
            float* const out = d.out + (first_row + r) * d.out_stride;
#pragma unroll
            for (int i = 0; i < kOutputs; ++i) {
                if (outputs[i] < 0) continue;
                if (!is_silu) finish(out + outputs[i], d.epilogue, y[i], 0.0f);
                else if (i < kOutputs / 2) finish(out + outputs[i], d.epilogue, y[i + kOutputs / 2], y[i]);
            }
        }
    }
}

// Rows normed for dense_kernel; out [rows, k].
__global__ void __launch_bounds__(kThreads) norm_kernel(Activations a, int64_t k, float* __restrict__ out) {
    SHARED_ARRAY(float, partial, kWarps);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const float* const x = a.x + blockIdx.x * a.stride;
    float squares = 0.0f;
    for (int64_t i = threadIdx.x; i < k; i += kThreads) squares += x[i] * x[i];
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = squares;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < kWarps; ++i) sum += partial[i];
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(k) + a.eps);
    for (int64_t i = threadIdx.x; i < k; i += kThreads) out[blockIdx.x * k + i] = x[i] * scale * a.norm[i];
}

template <int kKind>
int launch_dense(const Device& device, const Dense& d, void* stream) {
    // Of SILU_MUL half of a warp's outputs are gates: an odd number of pairs leaves some of the last warp without work.
    const int64_t warps = d.epilogue == PARLOR_EPILOGUE_SILU_MUL ? divide_up(d.n / 2, kOutputs / 2) : divide_up(d.n, kOutputs);
    const unsigned blocks = static_cast<unsigned>(divide_up(warps, kWarps));
    const auto chunks = [&](int rows) { return static_cast<unsigned>(std::min(divide_up(d.m, rows), kMaxGridY)); };
    if (d.m == 1) return launch(device, dense_kernel<kKind, 1>, dim3(blocks, 1), dim3(kThreads), 0, stream, d);
    if (d.m <= 4) return launch(device, dense_kernel<kKind, 4>, dim3(blocks, 1), dim3(kThreads), 0, stream, d);
    return launch(device, dense_kernel<kKind, 8>, dim3(blocks, chunks(8)), dim3(kThreads), 0, stream, d);
}

int linear_dense(const Device& device, const linear_weight& weight, const Activations& a, int64_t m, float* out,
                 int64_t out_stride, int epilogue, void* stream) {
    const bool has_vectors = weight.k % kAtOnce == 0 && is_aligned(weight.codes, 16);
    Dense d{weight.codes, weight.bias, a.x, a.stride, m, out, out_stride, weight.n, weight.k, epilogue, has_vectors};
    const int64_t rows = a.norm ? kRowsOfPass : m;
    Scratch scratch = Workspace::of(stream).scratch();
    float* const normed = a.norm ? scratch.take<float>(std::min(rows, m) * weight.k) : nullptr;
    if (a.norm && !normed) return PARLOR_ERROR_MEMORY;
    for (int64_t first = 0; first < m; first += rows) {
        d.m = std::min(m - first, rows);
        d.out = out + first * out_stride;
        if (a.norm) {
            const Activations part{a.x + first * a.stride, a.stride, a.norm, a.eps};
            const int error = launch(device, norm_kernel, dim3(static_cast<unsigned>(d.m)), dim3(kThreads), 0, stream, part,
                                     weight.k, normed);
            if (error) return error;
            d.x = normed, d.x_stride = weight.k;
        }
        int error = PARLOR_ERROR_DTYPE;
        if (weight.kind == PARLOR_LINEAR_F16) error = launch_dense<PARLOR_LINEAR_F16>(device, d, stream);
        if (weight.kind == PARLOR_LINEAR_BF16) error = launch_dense<PARLOR_LINEAR_BF16>(device, d, stream);
        if (weight.kind == PARLOR_LINEAR_F32) error = launch_dense<PARLOR_LINEAR_F32>(device, d, stream);
        if (error) return error;
    }
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int linear(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                      const linear_weight* weight, float* out, int64_t out_stride, int epilogue, void* stream) {
    if (const int error = check_weight(weight)) return error;
    if (epilogue < PARLOR_EPILOGUE_STORE || epilogue > PARLOR_EPILOGUE_GATE) return PARLOR_ERROR_VALUE;
    const bool is_silu = epilogue == PARLOR_EPILOGUE_SILU_MUL;
    if (m < 0 || x_stride < weight->k || (is_silu && weight->n % 2 != 0) ||
        out_stride < (is_silu ? weight->n / 2 : weight->n))
        return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!x || !out || !is_aligned(x, 4) || !is_aligned(out, 4) || !is_aligned(norm_weight, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Activations a{x, x_stride, norm_weight, eps};
    return is_quantized(*weight) ? linear_quantized(device, *weight, a, m, out, out_stride, epilogue, stream)
                                 : linear_dense(device, *weight, a, m, out, out_stride, epilogue, stream);
}
