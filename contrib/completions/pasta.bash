# Completion of pasta and passt for bash: options as --help has them, and what some of them take.

_pasta() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words
	case $previous in
	-i | --interface | --outbound-if4 | --outbound-if6) words=$(ls /sys/class/net) ;;
	--netns) words=$(ls /run/netns 2>/dev/null) ;;
	--offload) words='udp tcp none' ;;
	-t | --tcp-ports | -u | --udp-ports | -T | --tcp-ns | -U | --udp-ns) words='none auto all' ;;
	-D | --dns | -S | --search | --map-host-loopback | --map-guest-addr) words=none ;;
	--runas) words=$(compgen -u) ;;
	*)
		[[ $current == -* ]] || return 0 # a file, or a command
		words=$("$1" --help 2>/dev/null | grep -oE '(^ +|, )--?[a-z0-9][a-z0-9-]*' | tr -d ' ,')
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -o default -o bashdefault -F _pasta pasta passt
