// The kernel of attention.cu, which says what it does, and its launch; some instances are compiled in files of their own.
#pragma once

#include <cmath>
#include <type_traits>

#include "attention_groups.cuh"
#include "attention_pages.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

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

// What a thread reads of the values in one dimension: a number, or a word of codes with the scale of each; of keys that are the
// values one code.
template <int kKind, bool kOfKeys>
struct Value {
    static constexpr int kKeys = is_rounded(kKind) && !kOfKeys ? codes_of_word(kKind) : 1;
    uint32_t word;
    half scales[is_rounded(kKind) ? kKeys : 1];

    __device__ __forceinline__ void load(const Cache& c, int64_t head, int page, int slot, int d) {
        char* const block = block_of(c, kOfKeys ? c.keys : c.values, page, head);
        if constexpr (is_rounded(kKind) && kOfKeys) {
            constexpr int kCodes = codes_of_word(kKind);
            word = reinterpret_cast<const uint32_t*>(block)[d / kCodes * c.page_size + slot] >> (32 / kCodes * (d % kCodes));
            scales[0] = *scale_of<kKind>(c, block, d / kScaleGroup, slot);
        } else if constexpr (is_rounded(kKind)) {
            word = reinterpret_cast<const uint32_t*>(block)[slot / kKeys * c.head_dim + d];
            const half* const of_keys = scale_of<kKind>(c, block, d / kScaleGroup, slot);
#pragma unroll
            for (int j = 0; j < kKeys; ++j) scales[j] = of_keys[j];
        } else {
            const int64_t index = kOfKeys ? d * c.page_size + slot : slot * c.head_dim + d;
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
template <int kKind, int kHeads, bool kOfKeys>
__device__ __forceinline__ void add_values(const Cache& c, int64_t head, const int* pages, const int* slots,
                                           const float* weights, int begin, int end, int step, int d,
                                           float (&sums)[kHeads]) {
    using Own = Value<kKind, kOfKeys>;
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

// The sums of values over the keys begin .. end - 1, each times exp of its score, into sums, totals and largest; keys in
// front of first_key are not seen.
template <int kKind, int kHeads, bool kOfKeys>
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
        const int hidden = first_key > first ? static_cast<int>(first_key - first) / Value<kKind, kOfKeys>::kKeys : 0;
        const int first_value = part + (hidden > part ? (hidden - part + layout.parts - 1) / layout.parts * layout.parts : 0);
        for (int d = dimension; d < head_dim; d += kThreads) {
            float mine[kHeads];
            float* const kept = s.sums + part * kHeads * head_dim + d;
            for (int i = 0; i < kHeads; ++i) mine[i] = i < heads ? kept[i * head_dim] * s.faded[i] : 0.0f;
            add_values<kKind, kHeads, kOfKeys>(c, kv_head, s.pages, s.slots, s.weights, first_value, count, layout.parts, d, mine);
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
// kDims: of heads that attend_to_pages() does; 0: others. kOfKeys: the keys are the values, too.
template <int kKind, int kHeads, int kDims, bool kOfKeys>
__global__ void __launch_bounds__(kThreads, kDims > 0 && kHeads == kGroupHeads ? kGroupBlocks : blocks_at_once(kKind, kHeads, kOfKeys)) attention_kernel(const Attention a) {
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

    const Layout layout = layout_of(kHeads, head_dim, kDims > 0, kDims > 0 && kHeads == kGroupHeads);
    const Shared s{shared + layout.q, shared + layout.weights, shared + layout.sums, largest, totals, faded, pages, slots};
    for (int i = thread; i < kHeads * head_dim; i += kThreads)
        s.q[i] = i < heads * head_dim ? a.q[row * a.q_stride + first_head * head_dim + i] * a.scale : 0.0f;
    const int64_t task = blockIdx.z * int64_t{gridDim.y} + blockIdx.y;
    for (;;) {
        const int64_t begin = origin + split * split_keys, end = begin + split_keys;
        const int64_t last = place.keys < end ? place.keys : end;
        if constexpr (kDims > 0 && kHeads == kGroupHeads)
            attend_by_tensor_cores<kDims>(a, place, kv_head, heads, begin, last, first_key, s);
        else if constexpr (kDims > 0)
            attend_to_pages<kHeads, kDims>(a, place, kv_head, heads, begin, last, first_key, s);
        else
            attend_to<kKind, kHeads, kOfKeys>(a, place, kv_head, heads, begin, last, first_key, layout, s);
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

template <int kKind, int kHeads, int kDims, bool kOfKeys = false>
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
    const Layout layout = layout_of(kHeads, static_cast<int>(a.cache.head_dim), kDims > 0, kDims > 0 && kHeads == kGroupHeads);
    const size_t shared = sizeof(float) * static_cast<size_t>(layout.total);
    const int64_t first_of_call = a.first_row;
    for (int64_t first = 0; first < num_tokens; first += rows) {
        a.first_row = first_of_call + first;
        const int64_t own_rows = std::min(rows, num_tokens - first);
        const int64_t wanted = divide_up(int64_t{device.multiprocessors} * kBlocksOfMultiprocessor, head_blocks * own_rows);
        const int64_t blocks = std::min<int64_t>(a.max_splits, std::max<int64_t>(wanted, kFewestBlocks));
        const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(head_blocks), static_cast<unsigned>(own_rows));
        const auto kernel = attention_kernel<kKind, kHeads, kDims, kOfKeys>;
        const int error = launch(device, kernel, grid, dim3(kThreads), shared, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor
