// The embedding: rows of a table, widened.
//
// Bound by memory for prompts and by the start of a region for one token, so few rows stay on the calling thread.
// Each row is computed alone and in the same order, whatever the batch and the number of threads.
// Reference: embed() in model/kernels/reference/operations.py.
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

}  // namespace

void embed_rows(const EmbedArgs& a) {
    if (a.table_dtype == PARLOR_F32) embed_as<float>(a);
    else if (a.table_dtype == PARLOR_F16) embed_as<half_t>(a);
    else embed_as<bfloat_t>(a);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
