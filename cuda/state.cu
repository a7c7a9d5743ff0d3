// Layers with a state: short convolutions, the gated delta rule, Mamba 2.
//
//   short_conv    a thread for each channel of a sequence         bytes: 8 a number and row, and the state
//   gated_delta   a block for 32 columns of a head's state        bytes: the state read and written once a step
//   mamba2        the same                                        (2 MB each way for 32 heads of 128 x 128: 1 us)
//
// One row is bound by the state's bytes: 128 blocks for 32 heads of 128 columns, each with 16 KB in flight. A prompt is
// bound by the chain of its rows. A column of the state lies in the registers of four lanes of a warp, so that a row
// costs two shuffles or four and no barrier; warps meet once every kAhead rows, to put their inputs into shared memory.
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

constexpr int kColumns = 32;  // of a block
constexpr int kAhead = 8;     // rows of a sequence whose inputs lie in shared memory together
constexpr int kMaxDepth = 256;
template <int kDepth>
constexpr int kLanesOf = kDepth > 128 ? 8 : 4;  // that share a column, so that each holds at most 32 numbers
template <int kDepth>
constexpr int kThreadsOf = kColumns * kLanesOf<kDepth>;

// Of rows in memory. Lies in shared memory and is read anew each time, so that no register keeps a row's address from one
// use to the next.
struct Stride {
    int64_t value;

    __device__ int64_t get() const { return *static_cast<const volatile int64_t*>(&value); }
};

struct alignas(16) Four {
    float values[4];
};

// The part of a head's state that a thread holds, of one column. What lies outside is zero.
template <int kDepth>
struct StatePart {
    static constexpr int kLanes = kLanesOf<kDepth>, kFours = kDepth / (4 * kLanes);
    static constexpr int kColumnsOfWarp = 32 / kLanes;  // eight are 32 bytes of a row, as much as memory is read by

    float values[kFours][4];
    int first_row, column_of_block;
    int64_t depth, column;
    bool has_column;

    __device__ StatePart(int64_t depth_, int64_t width)
        : first_row(static_cast<int>(threadIdx.x) % 32 / kColumnsOfWarp * 4),
          column_of_block(static_cast<int>(threadIdx.x) / 32 * kColumnsOfWarp + static_cast<int>(threadIdx.x) % kColumnsOfWarp),
          depth(depth_), column(static_cast<int64_t>(blockIdx.x) * kColumns + column_of_block), has_column(column < width) {}

    // The sum over the lanes that share a column, in each of them.
    __device__ static float sum(const float (&sums)[4]) {
        float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
        for (int offset = kColumnsOfWarp; offset < 32; offset *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        return sum;
    }

    // The first of the lanes that share a column writes its results.
    __device__ bool writes_results() const { return first_row == 0 && has_column; }

    __device__ int row(int i, int j) const { return first_row + i * 4 * kLanes + j; }

    // The four numbers of an input [kDepth] in shared memory that belong to values[i].
    __device__ Four of(const float* input, int i) const { return *reinterpret_cast<const Four*>(input + row(i, 0)); }

    __device__ void read(const float* state, const Stride& width, bool is_zero) {
        const int64_t stride = width.get();
        for_each([&](int i, int j) {
            const bool is_inside = !is_zero && has_column && row(i, j) < depth;
            values[i][j] = is_inside ? state[row(i, j) * stride + column] : 0.0f;
        });
    }
    __device__ void write(float* state, const Stride& width) const {
        const int64_t stride = width.get();
        for_each([&](int i, int j) {
            if (has_column && row(i, j) < depth) state[row(i, j) * stride + column] = values[i][j];
        });
    }

  private:
    template <class Visit>
    __device__ __forceinline__ static void for_each(Visit visit) {
#pragma unroll
        for (int i = 0; i < kFours; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) visit(i, j);
    }
};

// kAhead rows of an input on their way into shared memory [kAhead, kWidth]: read early, put there later. What lies
// outside is zero.
template <int kWidth, int kThreads>
struct Input {
    static constexpr int kEach = (kAhead * kWidth + kThreads - 1) / kThreads;
    float values[kEach];

    __device__ void read(const float* from, const Stride& stride_, int64_t width, int64_t num_rows) {
        const int64_t stride = stride_.get();
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const int row = place(i) / kWidth, column = place(i) % kWidth;
            values[i] = row < num_rows && column < width ? from[row * stride + column] : 0.0f;
        }
    }
    __device__ void put(float* to) const {
#pragma unroll
        for (int i = 0; i < kEach; ++i)
            if (place(i) < kAhead * kWidth) to[place(i)] = values[i];
    }
    __device__ void put_exp(float* to) const {
#pragma unroll
        for (int i = 0; i < kEach; ++i)
            if (place(i) < kAhead * kWidth) to[place(i)] = expf(values[i]);
    }

  private:
    __device__ static int place(int i) { return i * kThreads + static_cast<int>(threadIdx.x); }
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

// Of a row's query and key: what makes them unit vectors (and the query's 1 / sqrt(dim)), and their product then.
struct Factors {
    float query, key, product;
};

// By a warp.
template <int kDepth>
__device__ __forceinline__ Factors factors_of(const float* query, const float* key, int64_t depth) {
    float qq = 0.0f, kk = 0.0f, qk = 0.0f;
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x) % 32; i < kDepth; i += 32)
        qq = fmaf(query[i], query[i], qq), kk = fmaf(key[i], key[i], kk), qk = fmaf(query[i], key[i], qk);
    constexpr float kEps = 1e-6f;
    const float of_query = 1.0f / (sqrtf(warp_sum(qq) + kEps) * sqrtf(static_cast<float>(depth)));
    const float of_key = 1.0f / sqrtf(warp_sum(kk) + kEps);
    return {of_query, of_key, warp_sum(qk) * of_query * of_key};
}

// Grid: blocks of columns, heads, sequences. With u = S^T k of the state before a row, decayed, the row adds k (x) w,
// where w = beta * (v - u), and its result is S^T q + (q . k) * w of that same state. Queries and keys are multiplied as
// they are in memory; what makes them unit vectors is applied to the sums. kByRow: each row of the state has a decay.
template <int kDepth, bool kByRow>
__global__ void __launch_bounds__(kThreadsOf<kDepth>) gated_delta_kernel(const Delta a) {
    constexpr int kThreads = kThreadsOf<kDepth>, kDecays = kByRow ? kDepth : 1;
    SHARED_ARRAY(float, queries, kAhead * kDepth);
    SHARED_ARRAY(float, keys, kAhead * kDepth);
    SHARED_ARRAY(float, decays, kAhead * kDecays);
    SHARED_ARRAY(float, values, kAhead * kColumns);
    SHARED_ARRAY(float, betas, kAhead);
    SHARED_ARRAY(Factors, factors, kAhead);
    SHARED_ARRAY(Stride, strides, 5);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Sequences& of = a.sequences;
    const int64_t s = blockIdx.z, head = blockIdx.y;
    const int64_t key_head = a.is_tiled ? head % a.num_key_heads : head / (a.num_heads / a.num_key_heads);
    const int64_t begin = of.first_row(s), end = of.last_row(s), of_head = head * a.key_dim * a.value_dim;
    float* const state = of.state(s);
    if (!state || begin >= end) return;
    const int64_t first_column = head * a.value_dim + static_cast<int64_t>(blockIdx.x) * kColumns;

    if (threadIdx.x == 0) {
        strides[0] = {a.q_stride}, strides[1] = {a.k_stride}, strides[2] = {a.log_decay_stride}, strides[3] = {a.v_stride};
        strides[4] = {a.value_dim};
    }
    __syncthreads();
    StatePart<kDepth> part(a.key_dim, a.value_dim);
    part.read(state + of_head, strides[4], of.begins(s));
    Input<kDepth, kThreads> query, key;
    Input<kDecays, kThreads> decay;
    Input<kColumns, kThreads> value;
    float beta = 0.0f;
    const auto read_inputs = [&](int64_t t) {
        query.read(a.q + t * a.q_stride + key_head * a.key_dim, strides[0], a.key_dim, end - t);
        key.read(a.k + t * a.k_stride + key_head * a.key_dim, strides[1], a.key_dim, end - t);
        decay.read(a.log_decay + t * a.log_decay_stride + head * a.decay_dim, strides[2], a.decay_dim, end - t);
        value.read(a.v + t * a.v_stride + first_column, strides[3], a.value_dim - (first_column - head * a.value_dim), end - t);
        if (threadIdx.x < kAhead) beta = t + threadIdx.x < end ? a.beta[(t + threadIdx.x) * a.beta_stride + head] : 0.0f;
    };
    read_inputs(begin);
    for (int64_t first = begin; first < end; first += kAhead) {
        const int count = static_cast<int>(end - first < kAhead ? end - first : kAhead);
        __syncthreads();
        query.put(queries), key.put(keys), decay.put_exp(decays), value.put(values);
        if (threadIdx.x < kAhead) betas[threadIdx.x] = beta;
        __syncthreads();
        if (first + kAhead < end) read_inputs(first + kAhead);
        for (int r = static_cast<int>(threadIdx.x) / 32; r < count; r += kThreads / 32) {
            const Factors own = factors_of<kDepth>(queries + r * kDepth, keys + r * kDepth, a.key_dim);
            if (threadIdx.x % 32 == 0) factors[r] = own;
        }
        __syncthreads();

        for (int r = 0; r < count; ++r) {
            float along_key[4] = {}, along_query[4] = {};
#pragma unroll
            for (int i = 0; i < part.kFours; ++i) {
                const Four k = part.of(keys + r * kDepth, i), q = part.of(queries + r * kDepth, i);
                Four d{{decays[r], decays[r], decays[r], decays[r]}};
                if (kByRow) d = part.of(decays + r * kDecays, i);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    part.values[i][j] *= d.values[j];
                    along_key[j] = fmaf(k.values[j], part.values[i][j], along_key[j]);
                    along_query[j] = fmaf(q.values[j], part.values[i][j], along_query[j]);
                }
            }
            const Factors f = factors[r];
            const float wrong = betas[r] * fmaf(-f.key, part.sum(along_key), values[r * kColumns + part.column_of_block]);
            const float result = fmaf(f.query, part.sum(along_query), f.product * wrong);
            if (part.writes_results()) a.out[(first + r) * a.out_stride + first_column + part.column_of_block] = result;
            const float written = f.key * wrong;
#pragma unroll
            for (int i = 0; i < part.kFours; ++i) {
                const Four k = part.of(keys + r * kDepth, i);
#pragma unroll
                for (int j = 0; j < 4; ++j) part.values[i][j] = fmaf(k.values[j], written, part.values[i][j]);
            }
            if (float* const kept = of.kept_state(first + r)) part.write(kept + of_head, strides[4]);
        }
    }
    part.write(state + of_head, strides[4]);
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
__global__ void __launch_bounds__(kThreadsOf<kDepth>) mamba2_kernel(const Mamba a) {
    constexpr int kThreads = kThreadsOf<kDepth>;
    SHARED_ARRAY(float, sources, kAhead * kDepth);
    SHARED_ARRAY(float, readers, kAhead * kDepth);
    SHARED_ARRAY(float, inputs, kAhead * kColumns);
    SHARED_ARRAY(float, times, kAhead);
    SHARED_ARRAY(Stride, strides, 4);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Sequences& of = a.sequences;
    const int64_t s = blockIdx.z, head = blockIdx.y, group = head / (a.num_heads / a.num_groups);
    const int64_t begin = of.first_row(s), end = of.last_row(s), of_head = head * a.state_size * a.head_dim;
    float* const state = of.state(s);
    if (!state || begin >= end) return;
    const int64_t first_column = head * a.head_dim + static_cast<int64_t>(blockIdx.x) * kColumns;
    const float factor = a.a[head], direct = a.d ? a.d[head] : 0.0f;

    if (threadIdx.x == 0) {
        strides[0] = {a.b_stride}, strides[1] = {a.c_stride}, strides[2] = {a.x_stride}, strides[3] = {a.head_dim};
    }
    __syncthreads();
    StatePart<kDepth> part(a.state_size, a.head_dim);
    part.read(state + of_head, strides[3], of.begins(s));
    Input<kDepth, kThreads> source, reader;
    Input<kColumns, kThreads> input;
    float time = 0.0f;
    const auto read_inputs = [&](int64_t t) {
        source.read(a.b + t * a.b_stride + group * a.state_size, strides[0], a.state_size, end - t);
        reader.read(a.c + t * a.c_stride + group * a.state_size, strides[1], a.state_size, end - t);
        input.read(a.x + t * a.x_stride + first_column, strides[2], a.head_dim - (first_column - head * a.head_dim), end - t);
        if (threadIdx.x < kAhead) time = t + threadIdx.x < end ? a.dt[(t + threadIdx.x) * a.dt_stride + head] : 0.0f;
    };
    read_inputs(begin);
    for (int64_t first = begin; first < end; first += kAhead) {
        const int count = static_cast<int>(end - first < kAhead ? end - first : kAhead);
        __syncthreads();
        source.put(sources), reader.put(readers), input.put(inputs);
        if (threadIdx.x < kAhead) times[threadIdx.x] = time;
        __syncthreads();
        if (first + kAhead < end) read_inputs(first + kAhead);

        for (int r = 0; r < count; ++r) {
            const float x = inputs[r * kColumns + part.column_of_block], step = times[r] * x;
            const float decay = expf(times[r] * factor);
            float results[4] = {};
#pragma unroll
            for (int i = 0; i < part.kFours; ++i) {
                const Four b = part.of(sources + r * kDepth, i), c = part.of(readers + r * kDepth, i);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    part.values[i][j] = fmaf(b.values[j], step, decay * part.values[i][j]);
                    results[j] = fmaf(c.values[j], part.values[i][j], results[j]);
                }
            }
            const float result = fmaf(direct, x, part.sum(results));
            if (part.writes_results()) a.out[(first + r) * a.out_stride + first_column + part.column_of_block] = result;
            if (float* const kept = of.kept_state(first + r)) part.write(kept + of_head, strides[3]);
        }
    }
    part.write(state + of_head, strides[3]);
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
        const auto kernel = decay_dim > 1 ? gated_delta_kernel<depth(), true> : gated_delta_kernel<depth(), false>;
        return launch(device, kernel, grid, dim3(kThreadsOf<depth()>), 0, stream, delta);
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
        return launch(device, mamba2_kernel<depth()>, grid, dim3(kThreadsOf<depth()>), 0, stream, mamba);
    });
}
