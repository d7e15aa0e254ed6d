#!/usr/bin/env bash
# Every function of the installed headers is called by a C test, every failure
# that they document is provoked by one, and the shared library exports these
# functions and nothing else.
#
#   check_interface.sh ROOT [LIBRARY]
#   check_interface.sh ROOT --list
#
# The second says what the headers declare, a line each: `function`, `inline` or
# `type`, the name, the header.
#
# What a header documents:
#   - A comment speaks of the BFT_API declarations that follow it directly, and
#     each status in it is an answer of theirs; but a sentence that begins with
#     another function ("A bft_put() ...") speaks of that one.
#   - "Errors: ... as of bft_put()": all that bft_put documents.
#   - The comment at the head of a file speaks of all functions whose first
#     parameter is a handle; a sentence of it that names types of handles, of
#     those on these.
#   - "never BFT_GONE" of a function takes that back.
#   - Names in capitals (BFT_...) are defined in some header.
#
# What provokes a status: a statement of a C test that has both the call and the
# status; or, where a loop or a helper stands between them, this comment beside
# what would fail, with any number of pairs:
#
#     /* provokes: bft_open BFT_IO, bft_open BFT_NO_SPACE */
#
# or this one over a function whose tests expect each of these of each call:
#
#     /* every call below provokes: BFT_IO BFT_CORRUPT */
#
# Either is refused for a pair that no header documents.
#
# The other way round, what a test expects of a call, first in its statement,
#
#     expect_status(BFT_GONE, bft_get(...));       EXPECT and EXPECT_STATUS likewise
#
# is documented, but for what comes from a function of the test's own: %theirs below.
#
# What is owed: the pairs of %owed below, documented and not provoked so far.  One
# that a test provokes, or that no header documents any more, is a breach.
#
# Prints each breach; exit status 1 when there is one.
set -uo pipefail
cd "$1" || exit 2
exports= list=
if [ "${2-}" = --list ]; then
    list=yes
elif [ $# -gt 1 ]; then
    exports=$("${NM:-nm}" -D --defined-only -P "$2") || exit 2
    exports=$(sed -E 's/[ @].*//' <<<"$exports")
fi
export exports list

perl - <<'END'
use strict;
use warnings;

my @headers =
    ('fileio/bft_status.h', 'index/bftree.h', 'index/bftree_backup.h',
     'index/bftree_bulk.h', 'index/bftree_feed.h', 'storage/bftree_stores.h');
my (%status, %defined, %handle); # names
my (%home, %fallible, %first);   # of each function
my %wanted;                      # function -> status -> 1
my %never;                       # the same, of what it does not answer
my %as;                          # function -> those whose errors it has too
my (@general, @breaches);

sub slurp {
    my ($name) = @_;
    local $/;
    open my $file, '<', $name or die "$name: $!\n";
    return scalar <$file>;
}

# Without stars and line ends, as sentences.
sub sentences {
    my ($comment) = @_;
    $comment =~ s{^/\*+|\*+/$|\n\s*\*}{ }g;
    $comment =~ s/\s+/ /g;
    $comment =~ s/^ //;
    return split /(?<=\.) /, $comment;
}

sub statuses_in {
    return grep { $status{$_} && $_ ne 'BFT_OK' } $_[0] =~ /\b(BFT_[A-Z0-9_]+)\b/g;
}

sub document {
    my ($comment, @functions) = @_;
    for my $sentence (sentences($comment)) {
        if ($sentence =~ /\bErrors\b[^.]*\bas (?:of )?(bft_\w+)\(\)/) {
            push @{$as{$_}}, $1 for grep { $fallible{$_} } @functions;
        }
        my ($other) = $sentence =~ /^(?:An? |The )?(bft_\w+)\(\)/;
        for my $function ($other ? ($other) : grep { $fallible{$_} } @functions) {
            $wanted{$function}{$_} = 1 for statuses_in($sentence);
            $never{$function}{$_} = 1 for $sentence =~ /\bnever (BFT_[A-Z_]+)/g;
        }
    }
}

sub declare {
    my ($header, $declaration) = @_;
    $declaration =~ s{/\*.*?\*/}{ }gs;
    my ($name, $first) = $declaration =~ /\b(bft_\w+)\s*\(\s*([^,)]*)/ or return;
    $home{$name} = $header;
    $fallible{$name} = $declaration =~ /\bbft_status\s+bft_\w+\s*\(/;
    $first{$name} = $first =~ /^(?:const )?(bft_\w+) \*\w+\s*$/ ? $1 : '';
    return $name;
}

sub read_header {
    my ($header) = @_;
    my $text = slurp($header);
    my ($head, $comment, @functions) = (1, '');
    $defined{$1} = 1 while $text =~ /^#define (BFT_\w+)/mg;
    $defined{$1} = 1 while $text =~ /\b(BFT_[A-Z0-9_]+)\b(?=[^;(]*?[,=}])/g;
    $handle{$1} = 1 while $text =~ /^typedef struct (\w+) \1;/mg;
    $text =~ s{^#define[^\n]*(\\\n[^\n]*)*}{}mg;
    while ($text =~ m{(/\*.*?\*/)|(BFT_API\b[^;]*;)|\S+?(?=\s|/\*|BFT_API)}gs) {
        if (defined $2) {
            my $name = declare($header, $2);
            push @functions, $name if $name;
            next;
        }
        document($comment, @functions);
        @functions = ();
        $comment = defined $1 ? $1 : '';
        push @general, $comment if $head && $comment;
        $head = 0;
    }
    document($comment, @functions);
}

sub read_names {
    my ($header) = @_;
    for my $comment (slurp($header) =~ m{/\*.*?\*/}gs) {
        for my $name ($comment =~ /\b(BFT_[A-Z0-9_]*[A-Z0-9])\b/g) {
            push @breaches, "$header: a comment names $name, which is not defined"
                unless $defined{$name} || $status{$name};
        }
    }
}

# What the heads of the files say.
sub spread {
    for my $sentence (map { sentences($_) } @general) {
        my @of = grep { $handle{$_} } $sentence =~ /\b(bft_\w+)\b/g;
        my %of = map { $_ => 1 } @of ? @of : keys %handle;
        for my $function (grep { $fallible{$_} && $of{$first{$_}} } keys %home) {
            $wanted{$function}{$_} = 1 for statuses_in($sentence);
        }
    }
}

# Twice: of one that has those of another.
sub inherit {
    for my $function (map { sort keys %as } 1 .. 2) {
        for my $other (@{$as{$function}}) {
            $wanted{$function}{$_} = 1 for keys %{$wanted{$other}};
        }
    }
}

my %owed = map { $_ => 1 } (
    'bft_bulk_load BFT_IO',
    'bft_bulk_load BFT_NOT_FOUND', 'bft_bulk_load BFT_POISONED',
    'bft_feed_next BFT_TOO_NEW', 'bft_feed_open BFT_CORRUPT',
    'bft_feed_open BFT_IO', 'bft_remove_expired BFT_NO_SPACE', 'bft_feed_value BFT_CORRUPT',
    'bft_feed_value BFT_IO', 'bft_feed_value BFT_NO_MEMORY',
);
my %theirs = map { $_ => 1 } (
    'bft_backup BFT_CONFLICT', 'bft_bulk_merge BFT_UNSUPPORTED', 'bft_db_shared BFT_CONFLICT',
);
my (%called, %provoked, %expected);

sub claim {
    my ($file, $function, $status) = @_;
    if (!$wanted{$function} || !$wanted{$function}{$status}) {
        push @breaches, "$file: provokes: $function $status: no header documents it";
    }
    $provoked{$function}{$status} = 1;
}

sub read_claims {
    my ($file, $claims) = @_;
    for my $claim (split /,/, $claims) {
        my ($function, $status, @rest) = split ' ', $claim;
        if (!$status || @rest) {
            push @breaches, "$file: provokes:$claim: no function and a status";
            next;
        }
        claim($file, $function, $status);
    }
}

# COMMENT is followed by BODY, of a function.
sub read_claims_of_all {
    my ($file, $statuses, $body) = @_;
    my @functions = code($body) =~ /\b(bft_\w+)\s*\(/g;
    push @breaches, "$file: every call below provokes: there is none"
        unless @functions;
    for my $function (grep { !defined $home{$_} || $fallible{$_} } @functions) {
        claim($file, $function, $_) for split ' ', $statuses;
    }
}

# TEXT without comments, what is in quotes and line ends of macros.  A mark of a
# comment may stand in quotes, and a quote in a comment.
sub code {
    my ($text) = @_;
    $text =~ s{("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|/\*.*?\*/}{$1 ? '0' : ' '}gse;
    $text =~ s/\\\n/ /g;
    $text =~ s/^(\s*#[^\n]*)$/$1;/mg;
    return $text;
}

sub read_test {
    my ($file) = @_;
    my $text = slurp($file);
    while ($text =~ m{/\*((?:[^*]|\*(?!/))*?)\bprovokes:(.*?)\*/}gs) {
        my ($before, $claims, $at) = ($1, $2, pos $text);
        $claims =~ s/\n\s*\*/ /g;
        if ($before !~ /\bevery call below\s+(\*\s+)?$/) {
            read_claims($file, $claims);
            next;
        }
        my ($body) = substr($text, $at) =~ /^(.*?\n)\}/s;
        read_claims_of_all($file, $claims, $body || '');
    }
    for my $statement (split /;/, code($text)) {
        my @functions = $statement =~ /\b(bft_\w+)\s*\(/g or next;
        $expected{"$2 $1"} = $file
            if $statement =~ /^\s*(?:expect_status|EXPECT(?:_STATUS)?)\(\s*(BFT_\w+),\s*(bft_\w+)\s*\(/;
        my @statuses = statuses_in($statement);
        for my $function (@functions) {
            $called{$function} = 1;
            $provoked{$function}{$_} = 1 for @statuses;
        }
    }
}

# What HEADER has beside the declarations with BFT_API: types, and functions with
# a body.
sub print_others {
    my ($header) = @_;
    my $text = slurp($header);
    $text =~ s{/\*.*?\*/}{ }gs;
    $text =~ s{^[ \t]*#[^\n]*(?:\\\n[^\n]*)*}{}mg;
    $text =~ s/\bextern "C" \{//g;
    1 while $text =~ s/\{[^{}]*\}/ <> /g;
    my @others = map { "type $_" } $text =~ /\btypedef\b[^;]*?\b(bft_\w+)\s*;/g;
    push @others, map { "inline $_" } $text =~ /\b(bft_\w+)\s*\([^;()]*\)\s*<>/g;
    print "$_ $header\n" for @others;
}

sub check_exports {
    my %exported = map { $_ => 1 } split ' ', $ENV{exports};
    for my $name (sort keys %home) {
        push @breaches, "$home{$name}: the shared library lacks $name"
            unless $exported{$name};
    }
    for my $name (sort keys %exported) {
        push @breaches, "the shared library exports $name, which no header declares"
            unless $home{$name};
    }
}

$status{"BFT_$_"} = 1 for slurp($headers[0]) =~ /\bX\((\w+), *-?\d+,/g;
die "no status in $headers[0]\n" unless %status;
read_header($_) for @headers;
read_names($_) for @headers;
inherit();
spread();
die "no function in the headers\n" unless %home;
if ($ENV{list}) {
    print "function $_ $home{$_}\n" for sort keys %home;
    print_others($_) for @headers;
    exit 0;
}
for my $function (keys %never) {
    delete $wanted{$function}{$_} for keys %{$never{$function}};
}
read_test($_) for sort glob('tests/*/*.c tests/*/*.h');
for my $function (sort keys %wanted) {
    push @breaches, "a header speaks of $function(), which none declares"
        unless $home{$function};
}
for my $function (sort keys %home) {
    push @breaches, "$home{$function}: no test calls $function"
        unless $called{$function};
    for my $status (sort keys %{$wanted{$function} || {}}) {
        push @breaches, "$home{$function}: no test provokes $function $status"
            unless $provoked{$function}{$status} || $owed{"$function $status"};
    }
}
for my $pair (sort keys %expected) {
    my ($function, $status) = split ' ', $pair;
    push @breaches, "$expected{$pair}: expects $function $status: no header documents it"
        if $fallible{$function} && $status ne 'BFT_OK' &&
        !$wanted{$function}{$status} && !$theirs{$pair};
}
for my $pair (sort keys %owed) {
    my ($function, $status) = split ' ', $pair;
    push @breaches, "$pair is owed, but provoked or not documented"
        if $home{$function} &&
        (!$wanted{$function}{$status} || $provoked{$function}{$status});
}
check_exports() if $ENV{exports};
print "$_\n" for @breaches;
exit(@breaches ? 1 : 0);
END
