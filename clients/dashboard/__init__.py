"""The dashboard: runs and campaigns as live pages, built on NiceGUI from what the services' streams and lists say.

One direction of dependence: pages → run_frame, panels → acts → frame, elements, charts → feeds → projection.

====================  =================================================================================================
app                   builds the web application; the one place that lists the pages
serving, probe        from a command line to a dashboard that answers, and whether one does
door/                 who comes in: login, sessions, hosts and origins, limits, headers
services              connections to the inner and the outer service
permission            what whoever looks at a page may do beyond looking
feeds                 one follower a run or campaign, shared by all open pages; it survives restarts of the services
polling               what a service only lists, read again for all open pages at once
projection/           pure folds from events to what a page shows: no I/O, no NiceGUI
frame, run_frame      what every page has, and what every page about one run has besides
elements              the few building blocks that pages are made of
part, folding         what is drawn again only when it changed, and what is sent only when it is opened
charts/               options of the charts
panels/               the larger pieces: a trial, a mechanism, the gate's verdict, a dialogue, source code
acts/                 what a person may do from a page
pages/                one module a page, each with ``register(services, feeds)``
static/               style sheet and script, served from here; nothing is fetched from another host
====================  =================================================================================================

Whatever a model, a mechanism or a task wrote is shown as text (``elements.text``, rows of a table), never as HTML.
"""
