/**
 * The button "Transfers accelerator" on the pages of a patient, a study and a series of Orthanc Explorer.
 *
 * Written for what the page brings: jQuery 1.7, jQuery Mobile 1.1, simpledialog2, ECMAScript 5.
 * URLs are relative to "app/", so that everything works behind a reverse proxy with a prefix.
 * Whatever comes from a server is put in with text() or attr(): the name of a peer is never HTML.
 **/
(function($) {
  'use strict';

  var TITLE = 'Transfers accelerator';
  var LEVELS = { 'patient': 'Patient', 'study': 'Study', 'series': 'Series' };

  // Within this many milliseconds, a second click belongs to the first one: it must not meet anything new
  // under the pointer, such as another peer, or the button that cancels the job.
  var DOUBLE_CLICK = 500;

  // The dialog that is open, or null. There is never a second one: simpledialog2 cannot close two.
  var current = null;


  function Paragraph(text) {
    return $('<p>').css({ 'white-space': 'normal', 'overflow-wrap': 'break-word' }).text(text);
  }


  function Dialog() {
    var self = this;

    this.isOpen = true;
    this.body = $('<div>').attr('id', 'transfers-dialog').css('padding', '0 15px 5px 15px');
    this.element = $('<div>').simpledialog2({
      mode: 'blank',
      animate: false,
      headerText: TITLE,
      headerClose: true,
      // A click next to the dialog does not close it: it may be the second half of a double click.
      forceInput: true,
      width: Math.min(500, $(window).width() - 30) + 'px',
      blankContent: this.body,
      callbackClose: function() {
        self.isOpen = false;
        current = null;
      }
    });
    current = this;
  }

  Dialog.prototype.show = function(content) {
    this.body.empty().append(content).trigger('create');
    this.element.simpledialog2('repos');
  };

  Dialog.prototype.setClosable = function(closable) {
    this.body.siblings('.ui-header').find('a').toggle(closable);
  };

  Dialog.prototype.close = function() {
    if (this.isOpen) {
      this.element.simpledialog2('close');
    }
  };


  // What to do with an answer, once no second click can follow, and if the dialog is still there
  function AfterClick(dialog, action) {
    var clicked = $.now();

    return function(answer) {
      setTimeout(function() {
        if (dialog.isOpen) {
          action(answer);
        }
      }, Math.max(0, clicked + DOUBLE_CLICK - $.now()));
    };
  }


  // One sentence out of a failed request: Orthanc's own error body if there is one
  function Explain(request) {
    var body;

    if (request.status === 0) {
      return 'this Orthanc server does not answer';
    }

    try {
      body = JSON.parse(request.responseText);
    } catch (e) {
      body = null;
    }

    return ((body && (body.Details || body.Message)) ||
            ('HTTP status ' + request.status + ' ' + request.statusText));
  }


  // The address of a job in the Orthanc Explorer of a peer, or null if none can be told.
  // "url" is the peer's root followed by "/jobs/<job>".
  function GetRemotePage(url, job) {
    var jobs = url.lastIndexOf('/jobs/');

    if (jobs === -1 || !/^https?:\/\//i.test(url)) {
      return null;
    }

    return url.substr(0, jobs).replace(/\/+$/, '') + '/app/explorer.html#job?uuid=' + encodeURIComponent(job);
  }


  function ShowRemoteJob(dialog, answer) {
    var page = GetRemotePage(String(answer.URL), String(answer.RemoteJob));
    var content = $('<div>')
      .append(Paragraph('The peer "' + answer.Peer + '" now fetches this resource from here, by a job of its own:'));

    if (page === null) {
      content.append(Paragraph(answer.RemoteJob));
    } else {
      content.append($('<p>').append($('<a>')
                                     .attr('id', 'transfers-remote-job')
                                     .attr('href', page)
                                     .attr('target', '_blank')
                                     .attr('rel', 'noopener')
                                     .text('Job ' + answer.RemoteJob)));
    }

    dialog.show(content);
  }


  function Send(dialog, level, id, peer) {
    dialog.setClosable(false);
    dialog.show(Paragraph('Sending to the peer "' + peer + '"\u2026'));

    $.ajax({
      url: '../transfers/send',
      type: 'POST',
      contentType: 'application/json',
      data: JSON.stringify({
        'Resources': [ { 'Level': level, 'ID': id } ],
        'Peer': peer,
        'Compression': 'gzip'
      }),
      dataType: 'json',
      success: AfterClick(dialog, function(answer) {
        dialog.setClosable(true);

        if (answer.RemoteJob) {
          ShowRemoteJob(dialog, answer);
        } else {
          dialog.close();
          // Unlike an assignment of "explorer.html#job", this keeps the "?token=" of the address
          window.location.hash = 'job?uuid=' + encodeURIComponent(answer.ID);
        }
      }),
      error: AfterClick(dialog, function(request) {
        dialog.setClosable(true);
        dialog.show(Paragraph('The transfer to the peer "' + peer + '" could not be started: ' +
                              Explain(request)));
      })
    });
  }


  function FormatPeer(name, state, choose) {
    if (state === 'disabled') {
      return $('<li>')
        .attr('aria-disabled', 'true')
        .css({ 'color': '#777', 'cursor': 'not-allowed' })
        .append($('<h3>').text(name))
        .append($('<p>').text('not reachable, or without the transfers plugin'));
    }

    return $('<li>').append($('<a>').attr('href', '#').text(name).click(function(e) {
      e.preventDefault();
      choose(name);
    }));
  }


  function ShowPeers(dialog, peers, choose) {
    var list = $('<ul>').attr('data-role', 'listview').attr('data-inset', 'true');
    var names = Object.keys(peers).sort(function(a, b) {
      return a.localeCompare(b);
    });

    if (names.length === 0) {
      dialog.show(Paragraph('No Orthanc peer is configured. ' +
                            'Add one to the section "OrthancPeers" of the configuration of this server.'));
      return;
    }

    list.append($('<li>').attr('data-role', 'list-divider').text('Send to the Orthanc peer'));
    names.forEach(function(name) {
      list.append(FormatPeer(name, peers[name], choose));
    });

    dialog.show(list);
  }


  function ChoosePeer(level, id) {
    var dialog;

    if (current !== null) {
      return;
    }

    dialog = new Dialog();
    dialog.show(Paragraph('Asking the peers\u2026'));

    $.ajax({
      url: '../transfers/peers',
      type: 'GET',
      dataType: 'json',
      cache: false,
      success: AfterClick(dialog, function(peers) {
        ShowPeers(dialog, peers, function(peer) {
          Send(dialog, level, id, peer);
        });
      }),
      error: AfterClick(dialog, function(request) {
        dialog.show(Paragraph('The list of the peers could not be read: ' + Explain(request)));
      })
    });
  }


  // "pagebeforecreate" comes once for a page, which then serves all the patients, studies or series
  $.each(LEVELS, function(page, level) {
    $('#' + page).live('pagebeforecreate', function() {
      // Inserted first: what follows comes between it and the description of the resource
      $('<p>')
        .css('text-align', 'center')
        .append($('<a>')
                .attr('id', page + '-transfers-page')
                // With the "?token=" of the address, if there is one
                .attr('href', '../transfers/app/' + window.location.search)
                // jQuery Mobile would load it into this page
                .attr('rel', 'external')
                .text('All transfers'))
        .insertAfter('#' + page + '-info');

      $('<a>')
        .attr('id', page + '-transfers')
        .attr('href', '#')
        .attr('data-role', 'button')
        .attr('data-icon', 'forward')
        .attr('data-theme', 'e')
        .text(TITLE)
        .click(function(e) {
          e.preventDefault();
          if ($.mobile.pageData) {
            ChoosePeer(level, $.mobile.pageData.uuid);
          }
        })
        .insertAfter('#' + page + '-info');
    });
  });


  // An open dialog would stay on the page, and send the study that was shown before
  $(document).bind('pagebeforechange', function() {
    if (current !== null) {
      current.close();
    }
  });
})(jQuery);
