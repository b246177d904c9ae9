"""The query language over twins [hub-service 8]: text → tree → meaning.

    lexer, parser   text to a tree, or Invalid with the place and what was expected there
    tree            what a query says, as frozen values that print themselves
    functions       what can be called, and what it answers
    meaning         the value of an expression in one twin, as services see it
    places          where what a query names stands in the records at rest, for a store that searches there
    groups          counting, adding up and grouping
    search          a whole query of one hub, page by page

A value is what JSON has, or `UNDEFINED` for what is not there. What is undefined is neither equal nor unequal to
anything, and a condition holds only when it is exactly true.
"""
