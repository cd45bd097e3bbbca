"""The flow language of ovs-ofctl(8): what an admin writes, what the datapath's tables hold, and back.

syntax    errors that point at a word; splitting text into words
values    numbers, addresses and flags: parse and print
fields    every field: its name, its place in struct flow_key, what it needs
match     a match's words -> key and mask
actions   an action's word -> Step, the parsed form
ops       Steps -> struct action; what the flow cache must look at
parse     whole flows, and filters for mod, del and dump; spec: what they come to; files: many at once
format    key, mask and Steps -> ovs-ofctl's text; dialects: stored texts in the words of an OpenFlow version
groups_syntax, meters_syntax   the same for groups and meters
"""
