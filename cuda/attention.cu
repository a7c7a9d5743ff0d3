// Causal attention over the paged cache for decode steps: the keys of a query row and key head in runs (splits), which
// blocks take by turns.
//
// Bound by reading the cache: 2 * head_dim * b bytes a key and key head, b = 2 (float16), 1.0625 (Q8), 0.5625 (Q4).
// Floor: those bytes over the bandwidth; Llama-2-7B at 2,048 keys reads 33.6 MB a layer in float16, 7.8 us at 4.3 TB/s.
// To get there 10 KB and more must be on their way for a multiprocessor: four blocks of four warps, 16 loads of 64 bytes each.
// The queries that share a key head (at most 8 a block) read each key once. Keys lie transposed in their page: a thread
// has a key for the scores, a dimension for the sum of values, and neighbours read neighbouring words.
//
// Arithmetic of one row, always the same: keys in blocks of 128, an online softmax over the blocks of a split, splits
// merged in ascending order by the last of their blocks to arrive. Splits follow from the number of keys that a row sees,
// so neither the other rows nor the size of a chunk nor the longest possible changes a bit, and a block that finds none left
// has nothing to do. Rows of a prompt work as well, but read the cache once each: for long prompts gather_pages() and a
// matrix product do better.
// Reference: paged_attention() in model/kernels/reference/operations.py.
#include <cmath>
#include <type_traits>

#include "cache.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockKeys = kThreads;
constexpr int kAtOnce = 16;  // numbers of a thread that are on their way
constexpr int kMaxSplits = 64;
constexpr int kBlocksOfMultiprocessor = 4;  // that are to be there for the splits of few rows
constexpr int kFewestBlocks = 4;            // that take a row's splits by turns, should it be much longer than the others

struct Attention {
    const float* q;
    int64_t q_stride;
    Cache cache;
    const int32_t* block_table;
    int64_t block_table_stride, max_pages;
    const int32_t *cu_seqlens, *seq_lens;
    float* out;
    int num_sequences;
    int64_t first_row;
    int num_heads, group;
    int max_splits;      // of a row that is as long as can be
    float scale;
    int64_t window;      // 0: all keys; negative: those of a chunk of -window
    float softcap;       // 0: none
    const float* sinks;  // [num_heads] or null
    float* partial;     // [row, head block, split][heads of block][head_dim + 2]: sums, largest score, sum of weights
    unsigned* tickets;  // [row, head block]
};

// The sequence of a row, and the keys that it sees.
struct Row {
    int sequence;
    int64_t keys;
};

__device__ __forceinline__ Row find_row(const Attention& a, int64_t row) {
    int low = 0, high = a.num_sequences;  // cu_seqlens[low] <= row < cu_seqlens[high]
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (a.cu_seqlens[middle] <= row) low = middle; else high = middle;
    }
    return {low, int64_t{a.seq_lens[low]} - a.cu_seqlens[low + 1] + row + 1};
}

__device__ __forceinline__ float widened(float number) { return number; }
__device__ __forceinline__ float widened(half number) { return __half2float(number); }

// The products of a key with the block's queries; `block` is that of its page.
template <int kKind, int kHeads>
__device__ __forceinline__ void score_key(const Cache& c, char* block, int slot, const float* q, float (&scores)[kHeads]) {
    const int head_dim = static_cast<int>(c.head_dim);
    if constexpr (is_rounded(kKind)) {
        constexpr int kCodes = codes_of_word(kKind);
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(block) + slot;
        for (int first = 0; first < head_dim; first += kScaleGroup) {
            float sums[kHeads] = {};
            const int end = first + kScaleGroup < head_dim ? first + kScaleGroup : head_dim;
#pragma unroll 8
            for (int d = first; d < end; d += kCodes) {
                const uint32_t word = words[d / kCodes * c.page_size];
#pragma unroll
                for (int j = 0; j < kCodes; ++j) {
                    const float number = number_of<kKind>(word, j);
#pragma unroll
                    for (int i = 0; i < kHeads; ++i) sums[i] += q[i * head_dim + d + j] * number;
                }
            }
            const float scale = __half2float(*scale_of<kKind>(c, block, first / kScaleGroup, slot));
#pragma unroll
            for (int i = 0; i < kHeads; ++i) scores[i] += sums[i] * scale;
        }
    } else {
        using Number = std::conditional_t<kKind == PARLOR_F32, float, half>;
        const Number* const keys = reinterpret_cast<const Number*>(block) + slot;
        const auto add = [&](Number number, int d) {
            const float key = widened(number);
#pragma unroll
            for (int i = 0; i < kHeads; ++i) scores[i] += q[i * head_dim + d] * key;
        };
        int d = 0;
#pragma unroll 1
        for (; d + kAtOnce <= head_dim; d += kAtOnce) {
            Number numbers[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) numbers[i] = keys[(d + i) * c.page_size];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) add(numbers[i], d + i);
        }
#pragma unroll 1
        for (; d < head_dim; ++d) add(keys[d * c.page_size], d);
    }
}

// What a thread reads of the values in one dimension: a number, or a word of codes with the scale of each.
template <int kKind>
struct Value {
    static constexpr int kKeys = is_rounded(kKind) ? codes_of_word(kKind) : 1;
    uint32_t word;
    half scales[is_rounded(kKind) ? kKeys : 1];

    __device__ __forceinline__ void load(const Cache& c, int64_t head, int page, int slot, int d) {
        char* const block = block_of(c, c.values, page, head);
        if constexpr (is_rounded(kKind)) {
            word = reinterpret_cast<const uint32_t*>(block)[slot / kKeys * c.head_dim + d];
            const half* const of_keys = scale_of<kKind>(c, block, d / kScaleGroup, slot);
#pragma unroll
            for (int j = 0; j < kKeys; ++j) scales[j] = of_keys[j];
        } else {
            const int64_t index = slot * c.head_dim + d;
            word = kKind == PARLOR_F32 ? reinterpret_cast<const uint32_t*>(block)[index]
                                       : reinterpret_cast<const uint16_t*>(block)[index];
        }
    }

    __device__ __forceinline__ float of(int j) const {
        if constexpr (is_rounded(kKind)) return number_of<kKind>(word, j) * __half2float(scales[j]);
        return kKind == PARLOR_F32 ? __uint_as_float(word) : __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
    }
};

// sums += weights of the keys times dimension d of their values; begin and step count Values. Several are on their way at
// once: no branch stands between the loads of a batch.
template <int kKind, int kHeads>
__device__ __forceinline__ void add_values(const Cache& c, int64_t head, const int* pages, const int* slots,
                                           const float* weights, int begin, int end, int step, int d,
                                           float (&sums)[kHeads]) {
    using Own = Value<kKind>;
    constexpr int kBatch = (is_rounded(kKind) ? kAtOnce / Own::kKeys : kAtOnce) / (kHeads > 4 ? 2 : 1);  // as registers allow
    const auto add = [&](const Own& value, int key) {
#pragma unroll
        for (int j = 0; j < Own::kKeys; ++j) {
            const float number = Own::kKeys == 1 || key + j < end ? value.of(j) : 0.0f;
#pragma unroll
            for (int i = 0; i < kHeads; ++i) sums[i] += weights[i * kBlockKeys + key + j] * number;
        }
    };
    const int stride = step * Own::kKeys;
    int key = begin * Own::kKeys;
#pragma unroll 1
    for (; key + (kBatch - 1) * stride < end; key += kBatch * stride) {
        Own values[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i)
            values[i].load(c, head, pages[key + i * stride], slots[key + i * stride], d);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) add(values[i], key + i * stride);
    }
#pragma unroll 1
    for (; key < end; key += stride) {
        Own value;
        value.load(c, head, pages[key], slots[key], d);
        add(value, key);
    }
}

// Scores become weights, relative to the largest score so far; a warp does one head at a time.
__device__ __forceinline__ void weigh(float* weights, int heads, float* largest, float* totals, float* faded) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = warp; i < heads; i += kThreads / 32) {
        float* const w = weights + i * kBlockKeys;
        float best = largest[i];
        for (int key = lane; key < kBlockKeys; key += 32) best = fmaxf(best, w[key]);
        best = warp_max(best);
        float total = 0.0f;
        for (int key = lane; key < kBlockKeys; key += 32) {
            w[key] = expf(w[key] - best);
            total += w[key];
        }
        total = warp_sum(total);
        __syncwarp();
        if (lane == 0) {
            faded[i] = expf(largest[i] - best);
            totals[i] = totals[i] * faded[i] + total;
            largest[i] = best;
        }
    }
}

// Shared memory of a block, in floats; parts: threads that share a dimension of a small head.
struct Layout {
    int q, weights, sums, total;
    int parts;
};
__host__ __device__ inline Layout layout_of(int heads, int head_dim) {
    const int parts = head_dim >= kThreads ? 1 : kThreads / head_dim;
    const int q = heads * head_dim, weights = heads * kBlockKeys, sums = parts * heads * head_dim;
    return {0, q, q + weights, q + weights + sums, parts};
}

// Blocks a processor: left to itself ptxas aims at ten and spills (sm_80 to 90); with four it does for the most sums (sm_120).
constexpr int blocks_at_once(int kind, int heads) { return kind == PARLOR_Q4 && heads > 4 ? 3 : 4; }

// What a block has in shared memory for its queries.
struct Shared {
    float *q, *weights, *sums;        // see Layout; sums of each part
    float *largest, *totals, *faded;  // [heads]
    int *pages, *slots;               // [kBlockKeys]
};

// The sums of values over the keys begin .. end - 1, each times exp of its score, into sums, totals and largest; keys in
// front of first_key are not seen.
template <int kKind, int kHeads>
__device__ __forceinline__ void attend_to(const Attention& a, const Row& place, int kv_head, int heads, int64_t begin,
                                          int64_t end, int64_t first_key, const Layout& layout, const Shared& s) {
    const Cache& c = a.cache;
    const int head_dim = static_cast<int>(c.head_dim), thread = threadIdx.x;
    const int part = thread / head_dim, dimension = thread % head_dim;
    for (int i = thread; i < layout.parts * kHeads * head_dim; i += kThreads) s.sums[i] = 0.0f;
    if (thread < kHeads) s.largest[thread] = -INFINITY, s.totals[thread] = 0.0f;
    for (int64_t first = begin; first < end; first += kBlockKeys) {
        const int count = static_cast<int>(end - first < kBlockKeys ? end - first : kBlockKeys);
        __syncthreads();  // the block before is done with pages, slots and weights
        float scores[kHeads];
        for (int i = 0; i < kHeads; ++i) scores[i] = -INFINITY;
        if (thread < count) {
            const int64_t key = first + thread, index = key / c.page_size;
            int64_t page = index < a.max_pages ? a.block_table[place.sequence * a.block_table_stride + index] : -1;
            if (page >= c.num_pages || page < 0) page = -1;
            s.pages[thread] = page < 0 ? 0 : static_cast<int>(page);  // any page will do: the weight is NaN
            s.slots[thread] = static_cast<int>(key % c.page_size);
            if (key >= first_key) {
                for (int i = 0; i < kHeads; ++i) scores[i] = page < 0 ? NAN : 0.0f;
                if (page >= 0)
                    score_key<kKind, kHeads>(c, block_of(c, c.keys, page, kv_head), s.slots[thread], s.q, scores);
                if (a.softcap > 0.0f)
                    for (int i = 0; i < kHeads; ++i) scores[i] = a.softcap * tanhf(scores[i] / a.softcap);
            }
        }
        for (int i = 0; i < kHeads; ++i) s.weights[i * kBlockKeys + thread] = scores[i];
        __syncthreads();
        weigh(s.weights, heads, s.largest, s.totals, s.faded);
        __syncthreads();
        if (part >= layout.parts) continue;
        // Keys in front of the window may have no page any more.
        const int hidden = first_key > first ? static_cast<int>(first_key - first) / Value<kKind>::kKeys : 0;
        const int first_value = part + (hidden > part ? (hidden - part + layout.parts - 1) / layout.parts * layout.parts : 0);
        for (int d = dimension; d < head_dim; d += kThreads) {
            float mine[kHeads];
            float* const kept = s.sums + part * kHeads * head_dim + d;
            for (int i = 0; i < kHeads; ++i) mine[i] = i < heads ? kept[i * head_dim] * s.faded[i] : 0.0f;
            add_values<kKind, kHeads>(c, kv_head, s.pages, s.slots, s.weights, first_value, count, layout.parts, d, mine);
            for (int i = 0; i < heads; ++i) kept[i * head_dim] = mine[i];
        }
    }
    __syncthreads();
    for (int i = thread; i < heads * head_dim; i += kThreads)  // the first part takes the sums of all
        for (int p = 1; p < layout.parts; ++p) s.sums[i] += s.sums[p * kHeads * head_dim + i];
}

// Leave the sums of one split for the last block to arrive; true in that block, which then has the sums of all.
template <int kHeads>
__device__ __forceinline__ bool sum_of_splits(const Attention& a, int64_t task, int splits, int split, int heads,
                                              int head_dim, const Shared& s, unsigned* arrived) {
    const int thread = threadIdx.x, stride = head_dim + 2;
    const unsigned others = static_cast<unsigned>(splits) - 1;
    float* const partials = a.partial + task * a.max_splits * kHeads * stride;
    float* const mine = partials + split * kHeads * stride;
    __syncthreads();
    for (int i = thread; i < heads * head_dim; i += kThreads) mine[i / head_dim * stride + i % head_dim] = s.sums[i];
    if (thread < heads)
        mine[thread * stride + head_dim] = s.largest[thread], mine[thread * stride + head_dim + 1] = s.totals[thread];
    __threadfence();
    __syncthreads();
    if (thread == 0) {
        *arrived = atomicAdd(a.tickets + task, 1u);
        if (*arrived == others) a.tickets[task] = 0;  // for the next step
    }
    __syncthreads();
    if (*arrived != others) return false;
    __threadfence();
    if (thread < heads) {
        const float* const of_head = partials + thread * stride + head_dim;
        float best = -INFINITY, total = 0.0f;
#pragma unroll 8
        for (int i = 0; i < splits; ++i) best = fmaxf(best, __ldcg(of_head + i * kHeads * stride));
#pragma unroll 8
        for (int i = 0; i < splits; ++i)
            total += expf(__ldcg(of_head + i * kHeads * stride) - best) * __ldcg(of_head + i * kHeads * stride + 1);
        s.largest[thread] = best, s.totals[thread] = total;
    }
    __syncthreads();
    for (int i = thread; i < heads * head_dim; i += kThreads) {
        const float* const of_head = partials + i / head_dim * stride;
        float sum = 0.0f;
#pragma unroll 8
        for (int j = 0; j < splits; ++j) {
            const float* const of_split = of_head + j * kHeads * stride;
            sum += expf(__ldcg(of_split + head_dim) - s.largest[i / head_dim]) * __ldcg(of_split + i % head_dim);
        }
        s.sums[i] = sum;
    }
    return true;
}

// Grid: blocks that take splits by turns, blocks of heads, rows.
template <int kKind, int kHeads>
__global__ void __launch_bounds__(kThreads, blocks_at_once(kKind, kHeads)) attention_kernel(const Attention a) {
    DYNAMIC_SHARED(float, shared);
    SHARED_ARRAY(int, pages, kBlockKeys);
    SHARED_ARRAY(int, slots, kBlockKeys);
    SHARED_ARRAY(float, largest, kHeads);
    SHARED_ARRAY(float, totals, kHeads);
    SHARED_ARRAY(float, faded, kHeads);
    SHARED_ARRAY(unsigned, arrived, 1);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int head_dim = static_cast<int>(a.cache.head_dim), thread = threadIdx.x;
    const int64_t row = a.first_row + blockIdx.z;
    const Row place = find_row(a, row);
    int64_t first_key = 0;
    if (a.window < 0) first_key = (place.keys - 1) / -a.window * -a.window;
    else if (a.window > 0 && place.keys > a.window) first_key = place.keys - a.window;
    const int blocks_of_group = (a.group + kHeads - 1) / kHeads;
    const int kv_head = blockIdx.y / blocks_of_group, first_of_group = blockIdx.y % blocks_of_group * kHeads;
    const int first_head = kv_head * a.group + first_of_group;
    const int heads = min(kHeads, a.group - first_of_group);
    float* const out = a.out + row * a.num_heads * head_dim + first_head * head_dim;
    if (place.keys < 1 || place.keys > a.max_pages * a.cache.page_size) {  // lengths that cannot be
        if (blockIdx.x == 0)
            for (int i = thread; i < heads * head_dim; i += kThreads) out[i] = NAN;
        return;
    }
    const int64_t origin = first_key / kBlockKeys * kBlockKeys, blocks = (place.keys - origin + kBlockKeys - 1) / kBlockKeys;
    const int64_t split_keys = (blocks + kMaxSplits - 1) / kMaxSplits * kBlockKeys;
    const int splits = static_cast<int>((place.keys - origin + split_keys - 1) / split_keys);
    int split = blockIdx.x;
    if (split >= splits) return;

    const Layout layout = layout_of(kHeads, head_dim);
    const Shared s{shared + layout.q, shared + layout.weights, shared + layout.sums, largest, totals, faded, pages, slots};
    for (int i = thread; i < kHeads * head_dim; i += kThreads)
        s.q[i] = i < heads * head_dim ? a.q[row * a.q_stride + first_head * head_dim + i] * a.scale : 0.0f;
    const int64_t task = blockIdx.z * int64_t{gridDim.y} + blockIdx.y;
    for (;;) {
        const int64_t begin = origin + split * split_keys, end = begin + split_keys;
        attend_to<kKind, kHeads>(a, place, kv_head, heads, begin, place.keys < end ? place.keys : end, first_key, layout, s);
        if (splits == 1 || sum_of_splits<kHeads>(a, task, splits, split, heads, head_dim, s, arrived)) break;
        split += static_cast<int>(gridDim.x);
        if (split >= splits) return;
    }
    __syncthreads();
    if (a.sinks) {  // a score more, of a value of zero
        if (thread < heads) totals[thread] += expf(a.sinks[first_head + thread] - largest[thread]);
        __syncthreads();
    }
    for (int i = thread; i < heads * head_dim; i += kThreads) s.sums[i] /= totals[i / head_dim];
    __syncthreads();
    if (is_rounded(kKind))
        for (int i = 0; i < heads; ++i) rotate_head(s.sums + i * head_dim, head_dim);
    for (int i = thread; i < heads * head_dim; i += kThreads) out[i] = s.sums[i];
}

template <int kKind, int kHeads>
int launch_attention(const Device& device, Attention a, int64_t num_tokens, void* stream) {
    const int64_t head_blocks = a.cache.num_kv_heads * divide_up(a.group, kHeads);
    const int64_t of_row = head_blocks * a.max_splits * kHeads * (a.cache.head_dim + 2);
    const Workspace workspace = Workspace::of(stream);
    a.tickets = workspace.tickets();
    int64_t rows = std::min<int64_t>({num_tokens, kMaxGridY, kTickets / head_blocks});
    if (a.max_splits > 1) {  // as many rows at once as the workspace has room for
        while (rows > 0 && !workspace.scratch().take<float>(rows * of_row)) rows /= 2;
        a.partial = workspace.scratch().take<float>(rows * of_row);
    }
    if (rows < 1) return PARLOR_ERROR_MEMORY;
    const size_t shared = sizeof(float) * static_cast<size_t>(layout_of(kHeads, static_cast<int>(a.cache.head_dim)).total);
    const int64_t first_of_call = a.first_row;
    for (int64_t first = 0; first < num_tokens; first += rows) {
        a.first_row = first_of_call + first;
        const int64_t own_rows = std::min(rows, num_tokens - first);
        const int64_t wanted = divide_up(int64_t{device.multiprocessors} * kBlocksOfMultiprocessor, head_blocks * own_rows);
        const int64_t blocks = std::min<int64_t>(a.max_splits, std::max<int64_t>(wanted, kFewestBlocks));
        const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(head_blocks), static_cast<unsigned>(own_rows));
        const int error = launch(device, attention_kernel<kKind, kHeads>, grid, dim3(kThreads), shared, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}

template <int kKind>
int attend(const Device& device, const Attention& a, int64_t num_tokens, void* stream) {
    const bool is_large = a.cache.head_dim > 256;  // eight heads would not fit shared memory
    if (a.group == 1 || is_large) return launch_attention<kKind, 1>(device, a, num_tokens, stream);
    if (a.group <= 4) return launch_attention<kKind, 4>(device, a, num_tokens, stream);
    return launch_attention<kKind, 8>(device, a, num_tokens, stream);
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int paged_attention(const float* q, int64_t q_stride, const void* k_cache, const void* v_cache, int cache_dtype,
                               int64_t num_pages, int64_t page_size, const int32_t* block_table,
                               int64_t block_table_stride, int64_t max_pages, const int32_t* cu_seqlens,
                               const int32_t* seq_lens, float* out, int64_t num_sequences, int64_t num_tokens,
                               int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale, int64_t window,
                               float softcap, const float* sinks, void* stream) {
    if (const int error = check_cache(k_cache, v_cache, cache_dtype, num_pages, page_size, num_kv_heads, head_dim))
        return error;
    if (num_sequences < 0 || num_tokens < 0 || num_heads < 1 || num_heads % num_kv_heads != 0 || max_pages < 1 ||
        num_sequences > kMaxGridX || num_heads > (1 << 20) || num_pages > kMaxGridX ||
        q_stride < num_heads * head_dim || block_table_stride < max_pages)
        return PARLOR_ERROR_SIZE;
    if (window <= -(int64_t{1} << 40) || !(softcap >= 0.0f)) return PARLOR_ERROR_VALUE;
    if (num_tokens == 0 || num_sequences == 0) return PARLOR_OK;
    if (sinks && !is_aligned(sinks, 4)) return PARLOR_ERROR_POINTER;
    if (!q || !block_table || !cu_seqlens || !seq_lens || !out || !is_aligned(q, 4) || !is_aligned(out, 4) ||
        !is_aligned(block_table, 4) || !is_aligned(cu_seqlens, 4) || !is_aligned(seq_lens, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    Attention a{};
    a.q = q, a.q_stride = q_stride;
    a.cache = {const_cast<void*>(k_cache), const_cast<void*>(v_cache), num_pages, page_size, num_kv_heads, head_dim,
               cache_block_bytes(cache_dtype, page_size, head_dim)};
    a.block_table = block_table, a.block_table_stride = block_table_stride, a.max_pages = max_pages;
    a.cu_seqlens = cu_seqlens, a.seq_lens = seq_lens, a.out = out, a.num_sequences = static_cast<int>(num_sequences);
    a.num_heads = static_cast<int>(num_heads), a.group = static_cast<int>(num_heads / num_kv_heads), a.scale = scale;
    a.window = window, a.softcap = softcap, a.sinks = sinks;
    a.max_splits = static_cast<int>(std::min<int64_t>(kMaxSplits, divide_up(max_pages * page_size, kBlockKeys)));
    switch (cache_dtype) {
        case PARLOR_F32: return attend<PARLOR_F32>(device, a, num_tokens, stream);
        case PARLOR_F16: return attend<PARLOR_F16>(device, a, num_tokens, stream);
        case PARLOR_Q8: return attend<PARLOR_Q8>(device, a, num_tokens, stream);
        default: return attend<PARLOR_Q4>(device, a, num_tokens, stream);
    }
}
