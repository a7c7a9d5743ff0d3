// Operations that go through their rows once: embedding, RMS norm, silu * up, addition.
//
// Bound by memory for prompts and by the start of a region for one token, so few rows stay on the calling thread.
// Each row is computed alone and in the same order, whatever the batch and the number of threads.
// Reference: the functions of the same names in model/kernels/reference.py.
#include <cmath>

#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kValuesPerShare = 8192;  // less work than this is not worth another thread (about 2 us)

int64_t rows_per_share(int64_t row_values) {
    return row_values >= kValuesPerShare ? 1 : kValuesPerShare / (row_values > 0 ? row_values : 1);
}

template <class Element>
void embed_as(const EmbedArgs& a) {
    const auto* table = static_cast<const Element*>(a.table);
    const int64_t n = a.hidden_size;
    team().parallel_for(a.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const Element* row = table + a.token_ids[t] * n;
            float* out = a.out + t * n;
            for_lanes(n, [&](int64_t i) { store(out + i, load(row + i)); },
                      [&](int64_t i, int64_t count) { store_n(out + i, load_n(row + i, count), count); });
        }
    }, rows_per_share(n));
}

float sum_of_squares(const float* x, int64_t n) {
    Vec sums[4] = {zero(), zero(), zero(), zero()};
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        for (int j = 0; j < 4; ++j) {
            const Vec v = load(x + i + j * kLanes);
            sums[j] = fma(v, v, sums[j]);
        }
    }
    for_lanes(n - i, [&](int64_t j) { const Vec v = load(x + i + j); sums[0] = fma(v, v, sums[0]); },
              [&](int64_t j, int64_t count) {
                  const Vec v = load_n(x + i + j, count);
                  sums[1] = fma(v, v, sums[1]);
              });
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

void embed_rows(const EmbedArgs& a) {
    if (a.table_dtype == PARLOR_F32) embed_as<float>(a);
    else if (a.table_dtype == PARLOR_F16) embed_as<half_t>(a);
    else embed_as<bfloat_t>(a);
}

void norm_rows(const NormArgs& a) {
    team().parallel_for(a.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const float* x = a.x + t * a.x_stride;
            float* out = a.out + t * a.out_stride;
            const Vec scale = set1(1.0f / std::sqrt(sum_of_squares(x, a.n) / static_cast<float>(a.n) + a.eps));
            for_lanes(a.n, [&](int64_t i) { store(out + i, load(x + i) * scale * load(a.weight + i)); },
                      [&](int64_t i, int64_t n) {
                          store_n(out + i, load_n(x + i, n) * scale * load_n(a.weight + i, n), n);
                      });
        }
    }, rows_per_share(a.n));
}

void silu_rows(const SiluArgs& a) {
    const auto activation = [](Vec gate, Vec up) { return gate / (set1(1.0f) + exp(zero() - gate)) * up; };
    // One long row is shared as well: a decode step has 5,000 to 30,000 values in it.
    const int64_t columns = a.num_tokens == 1 ? kValuesPerShare / 4 : a.n;
    const int64_t blocks = (a.n + columns - 1) / columns;
    team().parallel_for(a.num_tokens * blocks, [&](int64_t begin, int64_t end, int) {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t t = block / blocks, first = block % blocks * columns;
            const int64_t count = a.n - first < columns ? a.n - first : columns;
            const float* gate = a.gate_up + t * a.gate_up_stride + first;
            const float* up = gate + a.n;
            float* out = a.out + t * a.out_stride + first;
            for_lanes(count, [&](int64_t i) { store(out + i, activation(load(gate + i), load(up + i))); },
                      [&](int64_t i, int64_t n) {
                          store_n(out + i, activation(load_n(gate + i, n), load_n(up + i, n)), n);
                      });
        }
    }, rows_per_share(columns));
}

void add_values(float* x, const float* y, int64_t count) {
    team().parallel_for(count, [&](int64_t begin, int64_t end, int) {
        for_lanes(end - begin, [&](int64_t i) { store(x + begin + i, load(x + begin + i) + load(y + begin + i)); },
                  [&](int64_t i, int64_t n) {
                      store_n(x + begin + i, load_n(x + begin + i, n) + load_n(y + begin + i, n), n);
                  });
    }, kValuesPerShare);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
