"""The tables that every stage speaks: column contracts, checks with one-line errors, Parquet / TREC / BEIR files.

| table   | columns                                              | more columns where known                                  |
|---------|------------------------------------------------------|-----------------------------------------------------------|
| topics  | query_id, query                                      | messages, answers, solution                               |
| corpus  | doc_id, text                                         | title                                                     |
| run     | query_id, doc_id, score, rank                        | text, tag, temperature, draw, logprob, n_tokens, finish_reason, tokens, query, messages, reward |
| qrels   | query_id, doc_id, relevance                          |                                                           |
| lists   | query_id, query, doc_id, text, grade, tier, iteration| list, tokens                                              |
| results | measure, value, low, high, n                         | run, cutoff                                               |

Names are ir_measures' own. `tokens` are the ids that were drawn, None where they are not known. Identifiers are strings. In a run, the scores of one query under one `tag` fall strictly
with rank, so that no tool has a tie left to break its own way.
"""

from irlens.tables.contracts import COLUMNS as COLUMNS
from irlens.tables.contracts import GRADE as GRADE
from irlens.tables.contracts import KEYS as KEYS
from irlens.tables.contracts import NUMBERS as NUMBERS
from irlens.tables.contracts import check as check
from irlens.tables.contracts import passage_texts as passage_texts
from irlens.tables.contracts import ranked as ranked
from irlens.tables.contracts import with_queries as with_queries
from irlens.tables.files import no_spaces as no_spaces
from irlens.tables.files import parquet_columns as parquet_columns
from irlens.tables.files import read_lists as read_lists
from irlens.tables.files import read_qrels as read_qrels
from irlens.tables.files import read_run as read_run
from irlens.tables.files import write_trec_qrels as write_trec_qrels
from irlens.tables.files import write_trec_run as write_trec_run
from irlens.tables.own import query_id_of as query_id_of
from irlens.tables.own import run as run
from irlens.tables.own import topics as topics
