# site.R [examples]: builds the site in docs/, with the output of examples or without. Nothing in the result loads
# anything from the net: what pkgdown loads from there is taken out, and pkgdown/extra.js does what is needed of it.

root <- getwd()
site <- file.path(root, "docs")
work <- file.path(tempfile("site"), "kerasoptimizers")
dir.create(work, recursive = TRUE)

# A copy, so that pkgdown leaves the checkout as it is.
parts <- c("DESCRIPTION", "NAMESPACE", "LICENSE", "NEWS.md", "README.md", "CONTRIBUTING.md", "_pkgdown.yml", "R", "man",
           "inst", "vignettes", "pkgdown")
invisible(file.copy(parts, work, recursive = TRUE))

# Pages of other folders, as pages of the site.
pages <- c("benchmarks/README.md" = "benchmarks.md", "benchmarks/uci.md" = "uci.md")
pages <- pages[file.exists(names(pages))]
invisible(file.copy(names(pages), file.path(work, pages)))
raw <- list.files("inst/examples", "[.]R$", full.names = TRUE)
articles <- list.files("vignettes", "[.]Rmd$", full.names = TRUE)
moved <- c(pages, stats::setNames(file.path("examples", basename(raw)), raw),
           stats::setNames(sub("[.]Rmd$", ".html", sub("vignettes", "articles", articles)), articles))
for (file in c("README.md", "CONTRIBUTING.md", pages)) {
  path <- file.path(work, file)
  lines <- readLines(path)
  for (old in names(moved)) lines <- gsub(paste0("](", old, ")"), paste0("](", moved[[old]], ")"), lines, fixed = TRUE)
  # Links among the pages that moved here.
  if (file %in% pages) lines <- gsub("](../", "](", lines, fixed = TRUE)
  writeLines(lines, path)
}

# For the address of a package that is not installed here a list on the net would be asked.
if (exists("CRAN_urls", asNamespace("downlit"))) {
  utils::assignInNamespace("CRAN_urls", function() data.frame(Package = character(), URL = character()), "downlit")
}
Sys.setenv(TF_CPP_MIN_LOG_LEVEL = "3", NO_COLOR = "1")
# Examples are for a document here: no progress bars.
options(warn = 1, repos = c(CRAN = "@CRAN@"), pkgdown.internet = FALSE, knitr.in.progress = TRUE)

unlink(site, recursive = TRUE)
withCallingHandlers(
  pkgdown::build_site(
    work, examples = "examples" %in% commandArgs(TRUE), run_dont_run = FALSE, seed = 1, preview = FALSE,
    install = FALSE, new_process = FALSE, override = list(destination = site)
  ),
  # Without Python no example runs, which goes without saying.
  warning = function(warning) if (grepl("examplesIf", conditionMessage(warning))) invokeRestart("muffleWarning")
)
dir.create(file.path(site, "examples"))
invisible(file.copy(raw, file.path(site, "examples")))
# The pages of figures link their tables.
invisible(file.copy(Sys.glob("benchmarks/*.csv"), site))

# Pages ------------------------------------------------------------------------

from_net <- function(address) grepl("^(https?:)?//|^file:", address)

# What would be loaded from elsewhere: scripts, styles, and comments with such for browsers of old.
remove_from_net <- function(page) {
  loaded <- xml2::xml_find_all(page, "//script[@src] | //link[@rel = 'stylesheet'][@href]")
  address <- ifelse(is.na(xml2::xml_attr(loaded, "src")), xml2::xml_attr(loaded, "href"), xml2::xml_attr(loaded, "src"))
  xml2::xml_remove(loaded[from_net(address) | basename(address) == "pkgdown.js"])
  xml2::xml_remove(xml2::xml_find_all(page, "//comment()"))
}

# An empty logo, and pictures whose description stands beside them only.
mend_pictures <- function(page) {
  xml2::xml_remove(xml2::xml_find_all(page, "//img[@src = '']"))
  for (figure in xml2::xml_find_all(page, "//div[@class = 'figure']")) {
    image <- xml2::xml_find_first(figure, "./img[@alt = '']")
    caption <- xml2::xml_find_first(figure, "./p[@class = 'caption']")
    if (!is.na(image) && !is.na(caption)) {
      xml2::xml_set_attr(image, "alt", xml2::xml_text(caption))
      xml2::xml_remove(caption)
    }
  }
}

# Examples that did not run are in `if (FALSE) { }`.
unwrap_examples <- function(page) {
  for (code in xml2::xml_find_all(page, "//h2[@id = 'ref-examples']/following-sibling::div//code")) {
    lines <- xml2::xml_children(code)
    text <- xml2::xml_text(lines)
    if (length(text) > 0 && grepl("^if \\(FALSE\\) \\{ #", text[[1]])) {
      xml2::xml_remove(lines[c(1, max(which(text == "}")))])
    }
  }
}

# What fit() of Python prints tells nothing.
remove_addresses <- function(page) {
  printed <- xml2::xml_find_all(page, "//span[contains(@class, 'r-out')]")
  xml2::xml_remove(printed[grepl("^#> <.* object at 0x[0-9a-f]+>$", trimws(xml2::xml_text(printed)))])
}

# Of the many methods on one page the index names each function once.
shorten_methods <- function(page) {
  for (entry in xml2::xml_find_all(page, "//dt")) {
    methods <- xml2::xml_find_all(entry, "./code[a/i]")
    name <- sub("[(].*", "()", xml2::xml_text(methods))
    xml2::xml_remove(methods[duplicated(name)])
    links <- xml2::xml_find_first(methods[!duplicated(name)], "./a")
    xml2::xml_remove(xml2::xml_contents(links))
    xml2::xml_set_text(links, name[!duplicated(name)])
  }
}

# Wide tables scroll by themselves on a narrow window, not the whole page.
wrap_tables <- function(page) {
  for (table in xml2::xml_find_all(page, "//main//table")) {
    cells <- xml2::xml_text(xml2::xml_find_all(table, ".//td"))
    kind <- if (any(nchar(cells) > 60)) "table-box prose" else "table-box"
    box <- xml2::xml_add_sibling(table, "div", class = kind, .where = "before")
    xml2::xml_add_child(box, table)
    xml2::xml_remove(table)
  }
}

# "On this page", of the headings below the title.
add_contents <- function(page) {
  contents <- xml2::xml_find_first(page, "//nav[@id = 'toc']")
  if (is.na(contents)) return()
  headings <- xml2::xml_find_all(page, "//main//h2[@id] | //main//h3[@id]")
  if (length(headings) == 0) return(xml2::xml_remove(contents))
  list <- xml2::xml_add_child(contents, "ul")
  for (heading in headings) {
    item <- xml2::xml_add_child(list, "li", class = paste0("of-", xml2::xml_name(heading)))
    xml2::xml_add_child(item, "a", trimws(xml2::xml_text(heading)), href = paste0("#", xml2::xml_attr(heading, "id")))
  }
}

# A row for the page and each of its sections: where it is, what it is called, what it says.
search_rows <- function(page, file) {
  main <- xml2::xml_find_first(page, "//main")
  title <- xml2::xml_find_first(main, ".//h1")
  if (is.na(main) || is.na(title)) return(NULL)
  headings <- xml2::xml_find_all(main, ".//h2[@id] | .//h3[@id]")
  text_of <- function(node) gsub("\\s+", " ", trimws(xml2::xml_text(node)))
  # In pkgdown's pages a heading is the first child of its section, or of a division.
  sections <- xml2::xml_parent(headings)
  rows <- data.frame(
    path = sprintf("%s#%s", file, xml2::xml_attr(headings, "id")), title = rep(text_of(title), length(headings)),
    part = text_of(headings), text = text_of(sections)
  )
  rbind(data.frame(path = file, title = text_of(title), part = "", text = text_of(main)), rows)
}

# Addresses in pages that lead nowhere in the site.
dead_links <- function(page, file) {
  nodes <- xml2::xml_find_all(page, "//*[@href] | //*[@src]")
  address <- ifelse(is.na(xml2::xml_attr(nodes, "src")), xml2::xml_attr(nodes, "href"), xml2::xml_attr(nodes, "src"))
  address <- unique(sub("[#?].*", "", address[!grepl("^([a-z]+:|//|#)", address)]))
  target <- file.path(site, dirname(file), utils::URLdecode(address))
  address[nzchar(address) & !file.exists(target)]
}

files <- list.files(site, "[.]html$", recursive = TRUE)
pages <- lapply(stats::setNames(nm = files), function(file) xml2::read_html(file.path(site, file)))
rows <- do.call(rbind, Map(search_rows, pages, files))
rows <- rows[basename(rows$path) != "404.html", ]
# A script, which unlike JSON loads also from a folder.
writeLines(c("var searchRows =", jsonlite::toJSON(rows), ";"), file.path(site, "search-rows.js"), useBytes = TRUE)
leftovers <- list.files(file.path(site, "reference"), "^Rplot[0-9]+[.]png$", full.names = TRUE)
unlink(c(file.path(site, c("search.json", "pkgdown.js")), leftovers))
for (file in files) {
  page <- pages[[file]]
  remove_from_net(page)
  mend_pictures(page)
  unwrap_examples(page)
  remove_addresses(page)
  if (file == "reference/index.html") shorten_methods(page)
  wrap_tables(page)
  add_contents(page)
  xml2::write_html(page, file.path(site, file))
}

dead <- unlist(lapply(files, function(file) {
  links <- dead_links(pages[[file]], file)
  if (length(links) > 0) paste0("docs/", file, ": ", links)
}))
if (length(dead) > 0) {
  message("kerasoptimizers: the site has links that lead nowhere:\n", paste(dead, collapse = "\n"))
  quit(status = 1)
}
cat("The site is in docs/: open docs/index.html in a browser.\n")
