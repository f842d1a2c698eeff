r"""Judge a study's claims: supported, contradicted, undecided, or not testable.

A study file lists claims, one sentence each:

    claims:
      - head 24.17 is necessary            (or sufficient, causal, redundant, inhibitory, inert)
      - head 24.17 looks at the region
      - the model looks at the region
      - heads 24.17 and 23.20 are redundant          (or: heads 24.17, 23.20 and 19.31)
      - heads 24.17 and 23.20 do more together than alone            (or three or more)
      - heads 24.17 and 23.20 work together          (or: are independent)
      - heads 24.17, 23.20 and 19.31 are necessary together              (or: sufficient)
      - heads 24.17, 23.20 and 19.31 matter more than others of their layers
      - layers 17-26 hold the sensitive heads        (or: the causal heads)
      - the heads of layers 17-26 matter more than those of other layers
      - the answer reads the region in layers 17-24  (or: the question; or: reads the image)
      - attention and effects correlate by more than 0.5                 (or: less)
      - the heads of vision layer 8 are necessary
      - the heads of vision layers 8-9 matter more than those of other layers
      - vision layer 8 carries the object

What they mean: a causal head acts on the answer (it is necessary, sufficient, redundant or
inhibitory); a head looks at the region if it attends more to it with the object, by more than the
smallest attention difference of interest, and sensitive heads are the first that do so;
redundant heads are necessary together, and none of them alone; heads that work together are both
needed; the question is its words, without the answer position; a layer carries the object if the
region's patches bring the other run's answer as they leave it, and not as they enter it.

They are judged by the verdict in the output folder (--out, or --results); where there is none,
`headpatch verdict` is run first, with its files. What a claim needs beside it is measured on some
of the pairs that judge: attention to the region is cut, the stream at the region's patches is
swapped, heads and vision layers are changed together. What is run, and its price, is said first.
Ctrl-C keeps what is finished; the same command with `--resume` goes on.

An interval over pairs must lie beyond, or within, the smallest effect of interest, at a level that
is corrected for the number of claims. What that leaves open is undecided: more pairs may show it.
What no figure could tell is not testable, and the figure says why, or what is missing.

Writes claims.csv and, where something was measured for it, followed.csv: a later run takes from
there, and from the verdict's folder, what it need not measure again. Figures of another verdict, or
of pictures that have changed since, are measured anew; a model with other weights than the
verdict's is not measured.

Examples
--------
`printf 'claims:\n- head 9.31 looks at the region\n- head 9.31 is causal\n' > claims.yaml`

`headpatch claims claims.yaml --n 40 --out claims_output`
"""

from headpatch.core.question import Verb
from headpatch.questions.claims.columns import CLAIMS, FOLLOWED

VERB = Verb(
    "claims", "Which of the study's claims does the verdict support?", None, __doc__ or "",
    (CLAIMS, FOLLOWED), pairs=False, finished="pairs", own_command=True,
)  # fmt: skip
