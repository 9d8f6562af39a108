"""Lists of English words by which verb-noun pairs are told."""

__all__ = ["FUNCTION_WORDS", "QUESTION_WORDS", "VERBS"]


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = _listed(
    """
    add advise analyse analyze answer argue arrange ask build calculate categorise categorize change check choose cite
    classify combine compare complete compose compute consider construct continue convert copy correct count create
    criticise criticize debug define delete demonstrate derive describe design detect determine develop differentiate
    discuss divide draft draw edit elaborate estimate evaluate examine expand explain extract fill find fix generate
    give help identify illustrate imagine implement improve infer insert interpret invent justify list locate make
    match modify multiply name optimise optimize order organise organize outline paraphrase pick plan play predict
    prepare present produce propose prove provide rank rate read recommend refactor remove repeat rephrase replace
    report reverse review revise rewrite say select sell send show simplify solve sort specify spell state subtract
    suggest summarise summarize tell test transform translate treat try turn understand use verify write
    """
)
QUESTION_WORDS = _listed("what which who whom whose when where why how is are do does did can could should")
FUNCTION_WORDS = QUESTION_WORDS | _listed(
    """
    a an the this that these those some any each every all both no not
    i me my mine we us our you your he him his she her it its they them their one
    and or but if than then as so because while although though
    of in on at to for from with without by about into onto over under between among against during through after before
    up down out off near per via within across behind beyond
    am be been being was were has have had having will would shall may might must there here
    please just only also very more most much many few several
    """
)
