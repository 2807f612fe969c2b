# SPDX-License-Identifier: MIT
#
# Make entries of a man page from what `curfewd --help` prints: by flag (-v by=flag, curfewd(1)) or by
# variable (-v by=variable, curfewd(5)). So the pages cannot say anything else than the service does.
# The columns are where the table's head says; a value that does not fit into its column ends the build.

function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text ~ /^[.']/ ? "\\&" text : text
}

function column(from, to) {
    if (substr($0, to - 1, 1) !~ /^ ?$/) {
        print "settings.awk: does not fit its column: " $0 > "/dev/stderr"
        bad = 1
    }
    text = substr($0, from, to - from)
    sub(/ +$/, "", text)
    return text
}

/^  flag +environment +default/ {
    environment = index($0, "environment")
    default_ = index($0, "default")
    help = length($0) + 1
    next
}

help && /^$/ { exit }

help {
    flag = column(3, environment)
    variable = column(environment, default_)
    value = column(default_, help)
    text = roff(substr($0, help))
    name = by == "flag" ? flag : variable
    if (name == "") {
        next
    }
    n++
    print ".TP"
    if (by != "flag") {
        print ".B " roff(name)
    } else if (variable == "" && split(name, words, " ") == 2) {
        print ".BI " roff(words[1]) " \" " roff(words[2]) "\""
    } else if (variable == "") {
        print ".B " roff(name)
    } else {
        print ".BI " roff(name) " \" VALUE\""
    }
    print text (value == "" ? "" : " (default: " roff(value) ")")
    if (by == "flag" && variable != "") {
        print ".br"
        print "Environment: " roff(variable)
    }
}

END {
    if (n == 0) {
        print "settings.awk: no table of settings" > "/dev/stderr"
    }
    exit bad || n == 0
}
