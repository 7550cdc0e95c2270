# r-packages.R [PACKAGE...]: installs the R packages that the package, its example and its tests
# need, and those named, where this R lacks them or has them too old: with apt where we are root and
# this R is the distribution's, else from the configured R repository into the user's library.
# DESCRIPTION says which packages are needed, and from which version on.

stop_line <- function(...) {
  message("kerasoptimizers: ", ...)
  quit(status = 1)
}

# Versions (text, "0" for any) named by package, "R" among them.
needed_packages <- function() {
  fields <- read.dcf("DESCRIPTION", c("Depends", "Imports", "Suggests"))
  entries <- lapply(strsplit(fields, ","), trimws)
  # The rest of Suggests is used where it is installed, and not otherwise.
  suggested <- grep("^(testthat|mlbench)\\b", entries[[3]], value = TRUE)
  entries <- na.omit(c(entries[[1]], entries[[2]], suggested, commandArgs(trailingOnly = TRUE)))
  versions <- ifelse(grepl(">=", entries), gsub("^.*>=\\s*|\\s*\\)$", "", entries), "0")
  names(versions) <- sub("\\s*\\(.*$", "", entries)
  versions
}

# The version comes first: the namespace of a version that is too old, once loaded, would stay.
is_missing <- function(package, version) {
  installed <- suppressWarnings(packageDescription(package, fields = "Version"))
  is.na(installed) || package_version(installed) < version ||
    !suppressMessages(requireNamespace(package, quietly = TRUE))
}

missing_packages <- function(versions) {
  versions[as.logical(mapply(is_missing, names(versions), versions))]
}

describe <- function(versions) {
  least <- ifelse(versions == "0", "", paste0(" (>= ", versions, ")"))
  paste0(names(versions), least, collapse = ", ")
}

# Debian's packages are built for Debian's R; an R from elsewhere does not look where they lie.
may_use_apt <- function() {
  nzchar(Sys.which("apt-get")) && startsWith(R.home(), "/usr/lib/") &&
    system2("id", "-u", stdout = TRUE) == "0"
}

install_with_apt <- function(packages) {
  system2("tools/apt-install.sh", packages)
}

writable_library <- function() {
  first <- .libPaths()[1]
  if (file.access(first, 2) == 0) {
    return(first)
  }
  own <- path.expand(strsplit(Sys.getenv("R_LIBS_USER"), .Platform$path.sep)[[1]][1])
  if (is.na(own) || !(dir.exists(own) || dir.create(own, showWarnings = FALSE, recursive = TRUE))) {
    stop_line("no R library can be written to: set R_LIBS_USER to a folder of yours, and try again")
  }
  .libPaths(c(own, .libPaths()))
  own
}

install_from_repository <- function(versions) {
  repositories <- getOption("repos")
  repositories <- repositories[!is.na(repositories) & repositories != "@CRAN@"]
  if (length(repositories) == 0) {
    stop_line(
      "these R packages are missing: ", describe(versions), ". No R repository is configured: set ",
      "options(repos = ) in your .Rprofile and run this again, or install them yourself."
    )
  }
  library <- writable_library()
  what <- describe(versions)
  message("kerasoptimizers: installing in ", library, " (this can take minutes): ", what)
  problem <- NULL
  withCallingHandlers(
    try(install.packages(names(versions), library, repositories, quiet = TRUE), silent = TRUE),
    warning = function(warning) {
      problem <<- c(problem, gsub("\\s+", " ", conditionMessage(warning)))
      invokeRestart("muffleWarning")
    }
  )
  versions <- missing_packages(versions)
  if (length(versions) > 0) {
    stop_line(
      "these R packages are missing and could not be installed: ", describe(versions), " (",
      c(problem, "no reason given")[1], "). Install them in R and run this again."
    )
  }
}

versions <- needed_packages()
if (getRversion() < versions[["R"]]) {
  stop_line("R ", versions[["R"]], " or newer is needed, and this is R ", format(getRversion()))
}
versions <- missing_packages(versions[names(versions) != "R"])
if (length(versions) > 0 && may_use_apt()) {
  install_with_apt(paste0("r-cran-", tolower(names(versions))))
  versions <- missing_packages(versions)
  if (length(versions) > 0 && !nzchar(Sys.which("g++"))) {
    install_with_apt("r-base-dev")
  }
}
if (length(versions) > 0) {
  install_from_repository(versions)
}
