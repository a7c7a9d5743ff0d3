// Layers with a state: short convolutions, the gated delta rule, Mamba 2.
//
//   short_conv    a thread for each channel of a sequence         bytes: 8 a number and row, and the state
//   gated_delta   a block for 32 columns of a head's state        bytes: the state read and written once a step
//   mamba2        the same                                        (2 MB each way for 32 heads of 128 x 128: 1 us)
//
// One row is bound by the state's bytes: 128 blocks for 32 heads of 128 columns, each with 16 KB in flight. A prompt is
// bound by the chain of its rows: two barriers a row, while the state stays in registers.
//
// A row is computed alone and in the order of time, so neither chunks nor the batch change a bit. Slots that lie outside
// the table cannot be reported without waiting for the GPU: they are passed over like padding.
// Reference: the functions of these names in model/kernels/reference/states.py.
#include "launch.cuh"

namespace parlor {
namespace {

struct Sequences {
    float* states;
    int64_t slot_stride, num_slots;
    const int32_t *slots, *cu_seqlens, *seq_lens, *row_slots;
    int64_t num_rows;

    __device__ float* slot(int32_t index) const {
        return index >= 0 && index < num_slots ? states + index * slot_stride : nullptr;
    }
    __device__ float* state(int64_t s) const { return slot(slots[s]); }  // null: padding
    __device__ float* kept_state(int64_t t) const { return row_slots ? slot(row_slots[t]) : nullptr; }
    __device__ int64_t first_row(int64_t s) const { return cu_seqlens[s] > 0 ? cu_seqlens[s] : 0; }
    __device__ int64_t last_row(int64_t s) const { return cu_seqlens[s + 1] < num_rows ? cu_seqlens[s + 1] : num_rows; }
    __device__ bool begins(int64_t s) const { return seq_lens[s] == cu_seqlens[s + 1] - cu_seqlens[s]; }
};

// ---- convolutions -------------------------------------------------------------------------------------------------

constexpr int kConvThreads = 128;
constexpr int kMaxConvSize = 16;
constexpr int kRowsAhead = 8;  // that a thread has in flight

struct Conv {
    const float* x;
    int64_t x_stride;
    const float *weight, *bias;  // [size, channels]; [channels] or null
    float* out;                  // may be x
    int64_t out_stride;
    bool has_silu;
    Sequences sequences;
    int64_t num_sequences, size, channels;
};

// Grid: blocks of channels, sequences. kSize is at least the size; the first of the window's numbers are not used then.
template <int kSize>
__global__ void __launch_bounds__(kConvThreads) short_conv_kernel(const Conv a) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Sequences& of = a.sequences;
    const int64_t s = blockIdx.y, channel = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
    float* const state = of.state(s);
    const int64_t begin = of.first_row(s), end = of.last_row(s);
    if (channel >= a.channels || !state || begin >= end) return;
    const int unused = kSize - static_cast<int>(a.size);
    float weight[kSize], window[kSize];
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
        weight[j] = j >= unused ? a.weight[(j - unused) * a.channels + channel] : 0.0f;
        // the newest place is for the row itself
        const bool is_past = j > unused && !of.begins(s);
        window[j] = is_past ? state[(j - unused - 1) * a.channels + channel] : 0.0f;
    }
    const float bias = a.bias ? a.bias[channel] : 0.0f;
    const auto keep = [&](float* to) {
#pragma unroll
        for (int j = 1; j < kSize; ++j)
            if (j > unused) to[(j - unused - 1) * a.channels + channel] = window[j];
    };
    for (int64_t first = begin; first < end; first += kRowsAhead) {
        float inputs[kRowsAhead];
#pragma unroll
        for (int i = 0; i < kRowsAhead; ++i)
            inputs[i] = first + i < end ? a.x[(first + i) * a.x_stride + channel] : 0.0f;
#pragma unroll
        for (int i = 0; i < kRowsAhead; ++i) {
            if (first + i >= end) break;
#pragma unroll
            for (int j = 0; j + 1 < kSize; ++j) window[j] = window[j + 1];
            window[kSize - 1] = inputs[i];
            float sum = bias;
#pragma unroll
            for (int j = 0; j < kSize; ++j)
                if (j >= unused) sum = fmaf(window[j], weight[j], sum);
            a.out[(first + i) * a.out_stride + channel] = a.has_silu ? sum / (1.0f + expf(-sum)) : sum;
            if (float* const kept = of.kept_state(first + i)) keep(kept);
        }
    }
    keep(state);
}

// ---- states of matrices -------------------------------------------------------------------------------------------

constexpr int kColumns = 32;  // of a block: one a lane
constexpr int kRows = 16;     // of a warp
constexpr int kMaxDepth = 256;
template <int kDepth>
constexpr int kThreadsFor = kDepth / kRows * kColumns;

// The part of a head's state that a thread holds: kRows rows of one column. What lies outside is zero.
struct StatePart {
    float values[kRows];
    int first_row, num_rows;
    int64_t column;
    bool has_column;

    __device__ StatePart(int64_t depth, int64_t width)
        : first_row(static_cast<int>(threadIdx.x) / kColumns * kRows), num_rows(static_cast<int>(depth) - first_row),
          column(static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x % kColumns), has_column(column < width) {}

    // The width comes from shared memory, so that no register keeps a row's address from one use to the next.
    __device__ void read(const float* state, const int64_t* width, bool is_zero) {
        const float* const from = state + first_row * *width + column;
#pragma unroll
        for (int r = 0; r < kRows; ++r) values[r] = !is_zero && has_column && r < num_rows ? from[r * *width] : 0.0f;
    }
    __device__ void write(float* state, const int64_t* width) const {
        float* const to = state + first_row * *width + column;
#pragma unroll
        for (int r = 0; r < kRows; ++r)
            if (has_column && r < num_rows) to[r * *width] = values[r];
    }
};

// A row of inputs [depth] on its way into shared memory: read early, put there later. The rest is zeros.
template <int kDepth>
struct Input {
    static_assert(kThreadsFor<kDepth> >= kDepth, "a number of the row for a thread");

    float value;

    __device__ void read(const float* from, int depth, int step = 1) {
        const int at = static_cast<int>(threadIdx.x);
        value = at < depth ? from[at * step] : 0.0f;
    }
    __device__ void put(float* to) const {
        if (threadIdx.x < kDepth) to[threadIdx.x] = value;
    }
};

struct Delta {
    const float *q, *k, *v;
    int64_t q_stride, k_stride, v_stride;
    const float* log_decay;  // [T, num_heads * decay_dim]
    int64_t log_decay_stride, decay_dim;
    const float* beta;
    int64_t beta_stride;
    float* out;  // may be v
    int64_t out_stride;
    Sequences sequences;
    int64_t num_sequences, num_key_heads, num_heads;
    bool is_tiled;
    int64_t key_dim, value_dim;
};

// Grid: blocks of columns, heads, sequences. With u = S^T k of the state before a row, decayed, the row adds k (x) w,
// where w = beta * (v - u), and its result is S^T q + (q . k) * w of that same state. Queries and keys are multiplied as
// they are in memory; what makes them unit vectors is applied to the sums. A head that decays as a whole has its number
// for each row of the state.
template <int kDepth>
__global__ void __launch_bounds__(kThreadsFor<kDepth>) gated_delta_kernel(const Delta a) {
    constexpr int kThreads = kThreadsFor<kDepth>, kWarps = kThreads / kColumns;
    SHARED_ARRAY(float, queries, 2 * kDepth);
    SHARED_ARRAY(float, keys, 2 * kDepth);
    SHARED_ARRAY(float, decays, 2 * kDepth);
    SHARED_ARRAY(float, sums, 2 * kThreads);  // of warps: along the key, along the query
    SHARED_ARRAY(float, lengths, 3 * kWarps);      // of warps: q . q, k . k, q . k
    SHARED_ARRAY(int64_t, width, 1);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Sequences& of = a.sequences;
    const int64_t s = blockIdx.z, head = blockIdx.y;
    const int64_t key_head = a.is_tiled ? head % a.num_key_heads : head / (a.num_heads / a.num_key_heads);
    const int64_t begin = of.first_row(s), end = of.last_row(s), of_head = head * a.key_dim * a.value_dim;
    float* const state = of.state(s);
    if (!state || begin >= end) return;
    const int lane = threadIdx.x % kColumns, warp = threadIdx.x / kColumns, depth = static_cast<int>(a.key_dim);
    const float* const q = a.q + key_head * a.key_dim;
    const float* const k = a.k + key_head * a.key_dim;
    const float* const log_decay = a.log_decay + head * a.decay_dim;
    const int decay_step = a.decay_dim > 1;
    const float query_scale = 1.0f / sqrtf(static_cast<float>(depth));
    constexpr float kEps = 1e-6f;

    if (threadIdx.x == 0) *width = a.value_dim;
    __syncthreads();
    StatePart part(depth, a.value_dim);
    part.read(state + of_head, width, of.begins(s));
    Input<kDepth> next_query, next_key, next_decay;
    const auto read_inputs = [&](int64_t t) {
        next_query.read(q + t * a.q_stride, depth);
        next_key.read(k + t * a.k_stride, depth);
        next_decay.read(log_decay + t * a.log_decay_stride, depth, decay_step);
        next_decay.value = expf(next_decay.value);
    };
    read_inputs(begin);
    for (int64_t t = begin; t < end; ++t) {
        const int64_t place = (t - begin) % 2 * kDepth;
        float *const query = queries + place, *const key = keys + place, *const decay = decays + place;
        next_query.put(query), next_key.put(key), next_decay.put(decay);
        const float beta = a.beta[t * a.beta_stride + head];
        const int64_t at = head * a.value_dim + part.column;
        const float value = part.has_column ? a.v[t * a.v_stride + at] : 0.0f;
        __syncthreads();
        if (t + 1 < end) read_inputs(t + 1);

        float along_key[2] = {}, along_query[2] = {};
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            part.values[r] *= decay[part.first_row + r];
            along_key[r % 2] = fmaf(key[part.first_row + r], part.values[r], along_key[r % 2]);
            along_query[r % 2] = fmaf(query[part.first_row + r], part.values[r], along_query[r % 2]);
        }
        float qq = 0.0f, kk = 0.0f, qk = 0.0f;
        if (lane < kRows) {
            const float x = query[part.first_row + lane], y = key[part.first_row + lane];
            qq = x * x, kk = y * y, qk = x * y;
        }
        qq = warp_sum(qq), kk = warp_sum(kk), qk = warp_sum(qk);
        sums[threadIdx.x] = along_key[0] + along_key[1];
        sums[kThreads + threadIdx.x] = along_query[0] + along_query[1];
        if (lane == 0) lengths[warp] = qq, lengths[kWarps + warp] = kk, lengths[2 * kWarps + warp] = qk;
        __syncthreads();

        float key_sum = 0.0f, query_sum = 0.0f;
        qq = kk = qk = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            key_sum += sums[w * kColumns + lane], query_sum += sums[kThreads + w * kColumns + lane];
            qq += lengths[w], kk += lengths[kWarps + w], qk += lengths[2 * kWarps + w];
        }
        const float of_key = 1.0f / sqrtf(kk + kEps), of_query = query_scale / sqrtf(qq + kEps);
        const float wrong = beta * fmaf(-of_key, key_sum, value);
        if (warp == 0 && part.has_column)
            a.out[t * a.out_stride + at] = fmaf(of_query, query_sum, qk * of_query * of_key * wrong);
        const float written = of_key * wrong;
#pragma unroll
        for (int r = 0; r < kRows; ++r) part.values[r] = fmaf(key[part.first_row + r], written, part.values[r]);
        if (float* const kept = of.kept_state(t)) part.write(kept + of_head, width);
    }
    part.write(state + of_head, width);
}

struct Mamba {
    const float *x, *b, *c, *dt;
    int64_t x_stride, b_stride, c_stride, dt_stride;
    const float *a, *d;  // d may be null
    float* out;          // may be x
    int64_t out_stride;
    Sequences sequences;
    int64_t num_sequences, num_groups, num_heads, state_size, head_dim;
};

// Grid: blocks of columns, heads, sequences.
template <int kDepth>
__global__ void __launch_bounds__(kThreadsFor<kDepth>) mamba2_kernel(const Mamba a) {
    constexpr int kThreads = kThreadsFor<kDepth>, kWarps = kThreads / kColumns;
    SHARED_ARRAY(float, sources, kDepth);
    SHARED_ARRAY(float, readers, kDepth);
    SHARED_ARRAY(float, sums, kThreads);  // of warps
    SHARED_ARRAY(int64_t, width, 1);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Sequences& of = a.sequences;
    const int64_t s = blockIdx.z, head = blockIdx.y, group = head / (a.num_heads / a.num_groups);
    const int64_t begin = of.first_row(s), end = of.last_row(s), of_head = head * a.state_size * a.head_dim;
    float* const state = of.state(s);
    if (!state || begin >= end) return;
    const int lane = threadIdx.x % kColumns, warp = threadIdx.x / kColumns, depth = static_cast<int>(a.state_size);
    const float* const b = a.b + group * a.state_size;
    const float* const c = a.c + group * a.state_size;
    const float factor = a.a[head], direct = a.d ? a.d[head] : 0.0f;

    if (threadIdx.x == 0) *width = a.head_dim;
    __syncthreads();
    StatePart part(depth, a.head_dim);
    part.read(state + of_head, width, of.begins(s));
    Input<kDepth> next_source, next_reader;
    const auto read_inputs = [&](int64_t t) {
        next_source.read(b + t * a.b_stride, depth);
        next_reader.read(c + t * a.c_stride, depth);
    };
    read_inputs(begin);
    for (int64_t t = begin; t < end; ++t) {
        next_source.put(sources), next_reader.put(readers);
        const float dt = a.dt[t * a.dt_stride + head], decay = expf(dt * factor);
        const int64_t at = head * a.head_dim + part.column;
        const float x = part.has_column ? a.x[t * a.x_stride + at] : 0.0f, step = dt * x;
        __syncthreads();
        if (t + 1 < end) read_inputs(t + 1);

        float results[2] = {};
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            part.values[r] = fmaf(sources[part.first_row + r], step, decay * part.values[r]);
            results[r % 2] = fmaf(readers[part.first_row + r], part.values[r], results[r % 2]);
        }
        sums[threadIdx.x] = results[0] + results[1];
        __syncthreads();

        if (warp == 0 && part.has_column) {
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < kWarps; ++w) sum += sums[w * kColumns + lane];
            a.out[t * a.out_stride + at] = fmaf(direct, x, sum);
        }
        if (float* const kept = of.kept_state(t)) part.write(kept + of_head, width);
    }
    part.write(state + of_head, width);
}

// run(depth of a kernel that holds so many rows)
template <class Run>
int with_depth(int64_t depth, Run run) {
    if (depth <= 32) return run(std::integral_constant<int, 32>());
    if (depth <= 64) return run(std::integral_constant<int, 64>());
    if (depth <= 128) return run(std::integral_constant<int, 128>());
    return run(std::integral_constant<int, kMaxDepth>());
}

// The arguments of a step, before anything is read of them.
int check(const Sequences& of, int64_t num_sequences, int64_t state_floats) {
    if (num_sequences < 1 || num_sequences > kMaxGridY || of.num_rows < 0 || of.num_rows > kMaxGridX ||
        of.num_slots < 1 || of.slot_stride < state_floats)
        return PARLOR_ERROR_SIZE;
    if (!of.states || !of.slots || !of.cu_seqlens || !of.seq_lens || !is_aligned(of.states, 4) ||
        !is_aligned(of.slots, 4) || !is_aligned(of.cu_seqlens, 4) || !is_aligned(of.seq_lens, 4) ||
        !is_aligned(of.row_slots, 4))
        return PARLOR_ERROR_POINTER;
    return PARLOR_OK;
}

bool is_tensor(const void* pointer) { return pointer && is_aligned(pointer, 4); }

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int short_conv(const float* x, int64_t x_stride, const float* weight, const float* bias, float* out,
                          int64_t out_stride, int activation, float* states, int64_t slot_stride, int64_t num_slots,
                          const int32_t* slots, const int32_t* cu_seqlens, const int32_t* seq_lens,
                          const int32_t* row_slots, int64_t num_sequences, int64_t num_rows, int64_t size,
                          int64_t channels, void* stream) {
    if (size < 2 || size > kMaxConvSize || channels < 1 || x_stride < channels || out_stride < channels)
        return PARLOR_ERROR_SIZE;
    if (activation != PARLOR_ACTIVATION_NONE && activation != PARLOR_ACTIVATION_SILU) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    const Sequences sequences{states, slot_stride, num_slots, slots, cu_seqlens, seq_lens, row_slots, num_rows};
    if (const int error = check(sequences, num_sequences, (size - 1) * channels)) return error;
    if (!is_tensor(x) || !is_tensor(weight) || !is_aligned(bias, 4) || !is_tensor(out)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Conv conv{x, x_stride, weight, bias, out, out_stride, activation == PARLOR_ACTIVATION_SILU, sequences,
                    num_sequences, size, channels};
    const dim3 grid(static_cast<unsigned>(divide_up(channels, kConvThreads)), static_cast<unsigned>(num_sequences));
    const auto kernel = size <= 3 ? short_conv_kernel<3> : size == 4 ? short_conv_kernel<4> : short_conv_kernel<kMaxConvSize>;
    return launch(device, kernel, grid, dim3(kConvThreads), 0, stream, conv);
}

extern "C" int gated_delta(const float* q, int64_t q_stride, const float* k, int64_t k_stride, const float* v,
                           int64_t v_stride, const float* log_decay, int64_t log_decay_stride, int64_t decay_dim,
                           const float* beta, int64_t beta_stride, float* out, int64_t out_stride, float* states,
                           int64_t slot_stride, int64_t num_slots, const int32_t* slots, const int32_t* cu_seqlens,
                           const int32_t* seq_lens, const int32_t* row_slots, int64_t num_sequences, int64_t num_rows,
                           int64_t num_key_heads, int64_t num_heads, int is_tiled, int64_t key_dim, int64_t value_dim,
                           void* stream) {
    if (num_key_heads < 1 || num_heads < 1 || num_heads > kMaxGridY || num_heads % num_key_heads != 0 || key_dim < 1 ||
        key_dim > kMaxDepth || value_dim < 1 || q_stride < num_key_heads * key_dim || k_stride < num_key_heads * key_dim ||
        v_stride < num_heads * value_dim || out_stride < num_heads * value_dim ||
        (decay_dim != 1 && decay_dim != key_dim) || log_decay_stride < num_heads * decay_dim || beta_stride < num_heads)
        return PARLOR_ERROR_SIZE;
    if (num_rows == 0) return PARLOR_OK;
    const Sequences sequences{states, slot_stride, num_slots, slots, cu_seqlens, seq_lens, row_slots, num_rows};
    if (const int error = check(sequences, num_sequences, num_heads * key_dim * value_dim)) return error;
    if (!is_tensor(q) || !is_tensor(k) || !is_tensor(v) || !is_tensor(log_decay) || !is_tensor(beta) || !is_tensor(out))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Delta delta{q, k, v, q_stride, k_stride, v_stride, log_decay, log_decay_stride, decay_dim, beta, beta_stride, out,
                      out_stride, sequences, num_sequences, num_key_heads, num_heads, is_tiled != 0, key_dim, value_dim};
    const dim3 grid(static_cast<unsigned>(divide_up(value_dim, kColumns)), static_cast<unsigned>(num_heads),
                    static_cast<unsigned>(num_sequences));
    return with_depth(key_dim, [&](auto depth) {
        return launch(device, gated_delta_kernel<depth()>, grid, dim3(kThreadsFor<depth()>), 0, stream, delta);
    });
}

extern "C" int mamba2(const float* x, int64_t x_stride, const float* b, int64_t b_stride, const float* c,
                      int64_t c_stride, const float* dt, int64_t dt_stride, const float* a, const float* d, float* out,
                      int64_t out_stride, float* states, int64_t slot_stride, int64_t num_slots, const int32_t* slots,
                      const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* row_slots,
                      int64_t num_sequences, int64_t num_rows, int64_t num_groups, int64_t num_heads,
                      int64_t state_size, int64_t head_dim, void* stream) {
    if (num_groups < 1 || num_heads < 1 || num_heads > kMaxGridY || num_heads % num_groups != 0 || state_size < 1 ||
        state_size > kMaxDepth || head_dim < 1 || x_stride < num_heads * head_dim || b_stride < num_groups * state_size ||
        c_stride < num_groups * state_size || dt_stride < num_heads || out_stride < num_heads * head_dim)
        return PARLOR_ERROR_SIZE;
    if (num_rows == 0) return PARLOR_OK;
    const Sequences sequences{states, slot_stride, num_slots, slots, cu_seqlens, seq_lens, row_slots, num_rows};
    if (const int error = check(sequences, num_sequences, num_heads * state_size * head_dim)) return error;
    if (!is_tensor(x) || !is_tensor(b) || !is_tensor(c) || !is_tensor(dt) || !is_tensor(a) || !is_aligned(d, 4) ||
        !is_tensor(out))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Mamba mamba{x, b, c, dt, x_stride, b_stride, c_stride, dt_stride, a, d, out, out_stride, sequences,
                      num_sequences, num_groups, num_heads, state_size, head_dim};
    const dim3 grid(static_cast<unsigned>(divide_up(head_dim, kColumns)), static_cast<unsigned>(num_heads),
                    static_cast<unsigned>(num_sequences));
    return with_depth(state_size, [&](auto depth) {
        return launch(device, mamba2_kernel<depth()>, grid, dim3(kThreadsFor<depth()>), 0, stream, mamba);
    });
}
